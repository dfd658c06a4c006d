// Pairs of dances, one after another, in random order and sides; a vote for each, and a file of them at the end. Stands behind player.js.

const shuffled = items => { // Fisher and Yates
  const out = [...items];
  for (let i = out.length - 1; i > 0; i--) {
    const j = Math.floor(Math.random() * (i + 1));
    [out[i], out[j]] = [out[j], out[i]];
  }
  return out;
};

class Ballot {
  constructor(element, data) {
    Object.assign(this, { data, votes: [], at: 0, player: null, since: 0 });
    this.pairs = shuffled(data.pairs).map(pair => ({ ...pair, dancers: shuffled(pair.dancers) }));
    element.insertAdjacentHTML("beforeend", `<main class="stage"></main><div class="ballot" role="group" aria-label="Which dance is better?">
      <span class="progress" role="status"></span><button class="left">← Left</button><button class="tie">No difference ↓</button><button class="right">Right →</button>
      <button class="back">Undo (u)</button><button class="save">Save votes (s)</button></div>`);
    this.stage = element.querySelector(".stage");
    for (const choice of ["left", "tie", "right"]) element.querySelector(`.${choice}`).addEventListener("click", () => this.vote(choice));
    element.querySelector(".back").addEventListener("click", () => this.undo());
    element.querySelector(".save").addEventListener("click", () => this.save());
    const keys = { ArrowLeft: "left", ArrowRight: "right", ArrowDown: "tie" };
    addEventListener("keydown", event => { // Before the player's own keys
      if (event.ctrlKey || event.metaKey || event.altKey) return;
      const action = keys[event.key] ? () => this.vote(keys[event.key]) : { u: () => this.undo(), s: () => this.save() }[event.key];
      if (!action) return;
      event.preventDefault();
      event.stopPropagation();
      action();
    }, true);
    addEventListener("beforeunload", event => { if (this.votes.length && !this.saved) event.preventDefault(); });
    this.element = element;
    this.show();
  }

  get pair() { return this.pairs[this.at]; }

  show() {
    const { data, pair, element } = this;
    this.player?.dispose();
    this.player = null;
    this.stage.replaceChildren();
    element.querySelector(".progress").textContent = pair ? `${this.at + 1} of ${this.pairs.length}` : `Done: ${this.votes.length} votes. Save them.`;
    for (const name of ["left", "tie", "right"]) element.querySelector(`.${name}`).disabled = !pair;
    element.querySelector(".back").disabled = !this.votes.length;
    element.querySelector(".save").disabled = !this.votes.length;
    if (!pair) return element.querySelector(".save").focus();
    const dancers = pair.dancers.map(name => ({ ...data.motions[pair.song][name], name: "" }));
    const scene = { skeleton: data.skeleton, dancers, title: "Which dance is better?", beats: data.songs[pair.song].beats, sound: data.songs[pair.song].sound, body: data.body };
    const host = document.createElement("div");
    host.style.height = "100%";
    this.stage.append(host);
    this.player = window.player = mount(host, scene);
    this.player.repeat(true);
    this.since = performance.now();
    if (this.votes.length) this.player.play();
  }

  vote(choice) {
    const { pair } = this;
    if (!pair) return;
    const [left, right] = pair.dancers;
    this.votes.push({ left, right, song: pair.song, choice, seconds: Math.round(performance.now() - this.since) / 1000, time: new Date().toISOString() });
    this.saved = false;
    this.at++;
    this.show();
  }

  undo() {
    if (!this.votes.length) return;
    this.votes.pop();
    this.at--;
    this.show();
  }

  save() {
    if (!this.votes.length) return;
    const text = JSON.stringify({ format: 1, study: this.data.study, pairs: this.pairs.length, votes: this.votes }, null, 1);
    const link = Object.assign(document.createElement("a"), { href: URL.createObjectURL(new Blob([text], { type: "application/json" })), download: `votes-${this.data.study}-${Date.now()}.json` });
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 1000);
    this.saved = true;
  }
}
