// The player as a widget: what the page around says about light and dark, and one state shared with Python. Stands behind player.js.

const SHARED = ["time", "playing", "rate", "loop", "region", "trails", "ground"];

function pageTheme() { // JupyterLab, VS Code and Colab each have their own way to say it
  const { body, documentElement: root } = document;
  if (body.dataset.jpThemeLight) return body.dataset.jpThemeLight === "false" ? "dark" : "light";
  if (body.dataset.vscodeThemeKind) return body.dataset.vscodeThemeKind.includes("light") ? "light" : "dark";
  if (root.getAttribute("theme")) return root.getAttribute("theme") === "dark" ? "dark" : "light";
  return systemTheme();
}

const setters = {
  time: (player, time) => player.seek(time),
  playing: (player, on) => on ? player.play() : player.pause(),
  rate: (player, rate) => { player.rate = rate; },
  loop: (player, on) => player.repeat(on),
  region: (player, region) => { player.region = region && region.length ? region : null; },
  trails: (player, on) => player.press(".trails", on),
  ground: (player, on) => player.press(".ground", on),
};

const stateOf = player => ({
  time: player.time, playing: player.playing, rate: player.rate, loop: player.loop, region: player.region || [], trails: player.trails, ground: player.ground,
});

const same = (a, b) => JSON.stringify(a) === JSON.stringify(b);
const leaders = new WeakMap(); // Model -> the view that sounds, if a dancer is shown in several places

// Between a player and its model. What we have said ourselves comes back as an echo and must not be obeyed a second time.
class Link {
  constructor(model, player, view) {
    Object.assign(this, { model, player, view, said: stateOf(player), times: [], sent: 0 });
    for (const name of SHARED) if (name !== "playing") this.obey(name);
    this.obey("playing");
  }

  obey(name) { // Python, or another view, has set something
    const value = this.model.get(name), { player, said, times } = this;
    if (name === "time" ? times.includes(value) || Math.abs(value - player.time) < .4 / player.fps : same(value, said[name])) return;
    if (name === "time" && this.follower && player.playing && Math.abs(value - player.time) < .3) return;
    said[name] = value;
    if (name === "playing" && player.audio) player.audio.muted = this.follower || !player.pressed(".sound");
    setters[name](player, value);
  }

  get follower() { return leaders.get(this.model) !== this.view; }

  tell(now) { // Say what has changed here: the time eight times a second while playing, everything else at once
    const state = stateOf(this.player), { model, said, times } = this;
    const changed = SHARED.filter(name => !same(state[name], said[name]) && (name !== "time" || (!this.follower || !state.playing) && (now - this.sent > 120 || !state.playing)));
    if (!changed.length) return;
    if (changed.includes("playing") && state.playing) this.lead();
    for (const name of changed) {
      said[name] = state[name];
      if (name === "time") { times.push(state.time); this.sent = now; }
      model.set(name, state[name]);
    }
    if (times.length > 40) times.shift();
    model.save_changes();
  }

  lead() {
    leaders.set(this.model, this.view);
    if (this.player.audio) this.player.audio.muted = !this.player.pressed(".sound");
  }
}

async function dress(view, model) { // Scene -> player
  const scene = model.get("scene"), packed = new Uint8Array(scene.buffer, scene.byteOffset, scene.byteLength);
  const host = document.createElement("div");
  const player = mount(host, await unpack(packed), { theme: pageTheme, stay: true });
  view.replaceChildren(host);
  host.style.height = "100%";
  player.fit();
  return player;
}

async function render({ model, el }) {
  const view = document.createElement("div"), resize = () => { view.style.height = `${model.get("height")}px`; };
  view.className = "a2p-view";
  el.append(view);
  resize();
  if (!leaders.get(model)) leaders.set(model, view);
  let player = null, link = null, gone = false;
  const start = async () => {
    const made = await dress(view, model).catch(error => { view.textContent = `The dancer cannot be shown: ${error.message}`; });
    player?.dispose();
    if (gone) made?.dispose();
    player = view.player = gone ? null : made;
    link = player && new Link(model, player, view);
    if (player) player.ontick = () => link.tell(performance.now());
  };
  const listeners = SHARED.map(name => [`change:${name}`, () => link?.obey(name)]);
  listeners.push(["change:scene", () => start()], ["change:height", resize]);
  for (const [event, action] of listeners) model.on(event, action);
  const watch = new MutationObserver(() => player?.paint());
  for (const node of [document.body, document.documentElement]) watch.observe(node, { attributes: true });
  const pulse = setInterval(() => player && (player.time, link.tell(performance.now())), 125); // Also where nothing is drawn, as in a cell scrolled away
  await start();
  return () => {
    gone = true;
    clearInterval(pulse);
    watch.disconnect();
    for (const [event, action] of listeners) model.off(event, action);
    if (leaders.get(model) === view) leaders.delete(model);
    player?.dispose();
  };
}

export default { render };
