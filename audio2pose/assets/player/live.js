// A dancer whose frames come while she dances: kept for a minute, and shown at the time of the sound, or as they come. Stands behind player.js.

class LiveDance extends Dance { // A ring of frames in place of a whole motion
  constructor(skeleton, fps, size = 60 * fps) {
    super({ skeleton, fps, frames: size, ground: 0, poses: new Uint8Array(144 * size), trans: new Uint8Array(12 * size) });
    Object.assign(this, { begin: null, end: 0 });
  }

  add({ first, poses, trans }) { // Frames from number `first` on
    const turns = array(Int16Array, poses), roots = array(Float32Array, trans), count = roots.length / 3;
    for (let k = 0; k < count; k++) {
      const slot = (first + k) % this.frames;
      this.poses.set(turns.subarray(72 * k, 72 * k + 72), 72 * slot);
      for (const ring of [this.trans, this.path]) ring.set(roots.subarray(3 * k, 3 * k + 3), 3 * slot);
    }
    this.begin ??= first;
    this.end = first + count;
  }

  show(place) { return this.at(clamp(place, Math.max(this.begin, this.end - this.frames + 2), this.end - 1) % this.frames); }
}

class LivePage {
  constructor(element, data) {
    Object.assign(this, { data, dance: new LiveDance(data.skeleton, data.fps), camera: new Camera(), last: performance.now(), place: null, centre: null });
    element.insertAdjacentHTML("beforeend", `<main class="stage"><div class="a2p waiting"><canvas aria-label="A dancer, in three dimensions. Drag to turn, scroll to zoom."></canvas>
      <h1 class="title"></h1><p class="note" role="status"></p></div></main>
      <div class="ballot" role="group" aria-label="Live dance"><button class="start">Start</button><label>Style <select><option value="">any</option></select></label>
      <label>Energy <input type="range" min="0.25" max="2" step="0.05"></label><span class="progress" role="status"></span></div>`);
    this.find = name => element.querySelector(name);
    this.find(".a2p").style.height = "100%";
    this.find(".title").textContent = data.title;
    for (const name of data.styles) this.find("select").append(new Option(name, name));
    this.find("select").value = data.style ?? "";
    this.find("input").value = data.energy;
    this.screen = renderer(this.find("canvas"), data, this.find(".note"));
    this.find("select").addEventListener("change", event => this.send({ style: event.target.value || null }));
    this.find("input").addEventListener("change", event => this.send({ energy: event.target.valueAsNumber }));
    this.find(".start").addEventListener("click", () => this.start());
    listenToPointer(this.find("canvas"), this.camera, () => {}, () => {});
    this.note("Press Start: the dancer begins with the sound.");
    this.paint();
    matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => this.paint());
    requestAnimationFrame(now => this.tick(now));
  }

  paint() { this.find(".a2p").classList.toggle("dark", systemTheme() === "dark"); }
  note(text) { this.find(".note").textContent = text; }

  async send(change) { // A change of style or energy
    const said = await fetch("control", { method: "POST", body: JSON.stringify(change) }).catch(() => null);
    this.note(said?.ok ? "Heard: it is seen within eight beats." : said ? await said.text() : "The dance has ended.");
  }

  async start() {
    this.find(".start").disabled = true;
    this.note("");
    if (this.data.song) this.clock = new Clock(loadSound({ data: new Uint8Array(await (await fetch("song")).arrayBuffer()), type: "audio/mpeg" }, this.find(".note")), Infinity, Infinity);
    const source = new EventSource("frames");
    source.onmessage = event => this.receive(JSON.parse(event.data));
    source.addEventListener("end", () => { this.ended = true; source.close(); });
    source.onerror = () => { this.ended = true; source.close(); this.note("The dance has ended."); };
  }

  receive(part) {
    const { dance, clock, data } = this;
    dance.add(part);
    this.find(".a2p").classList.remove("waiting");
    this.find(".progress").textContent = `${Math.floor(dance.end / data.fps)} s, ${part.bpm} bpm`;
    if (!clock || clock.playing || dance.end / data.fps < Math.max(clock.mark, dance.begin / data.fps) + 1) return;
    if (clock.mark * data.fps < dance.begin) clock.seek(dance.begin / data.fps); // A page that came late
    clock.play();
  }

  step(seconds) { // The frame to be shown: the song's, or four tenths of a second behind the newest, leaning towards it
    const { dance, clock, data } = this, wanted = dance.end - .4 * data.fps;
    if (clock?.playing && !this.ended && clock.time * data.fps > dance.end) clock.pause(); // The song waits for the dancer
    if (clock) return clock.time * data.fps;
    const place = (this.place ?? wanted) + seconds * data.fps, gap = wanted - place;
    return this.place = Math.min(Math.abs(gap) > data.fps ? wanted : place + gap * Math.min(1, seconds), dance.end - 1);
  }

  tick(now) {
    const canvas = this.find("canvas"), seconds = Math.min((now - this.last) / 1000, .1), ratio = bySoftware() ? .6 : Math.min(devicePixelRatio || 1, 2);
    const width = Math.max(1, Math.round(canvas.clientWidth * ratio)), height = Math.max(1, Math.round(canvas.clientHeight * ratio));
    if (canvas.width !== width || canvas.height !== height) Object.assign(canvas, { width, height });
    this.last = now;
    this.camera.glide(seconds);
    const pose = this.dance.end ? this.dance.show(this.step(seconds)) : this.dance.at(0);
    this.centre ??= this.dance.end ? pose.path : null;
    this.centre = this.centre?.map((x, i) => x + Math.min(1, 1.5 * seconds) * (pose.path[i] - x)); // A calm camera
    const view = this.camera.view(this.centre ?? [0, 0, 0], 0, width / height, 0);
    if (this.dance.end) this.screen.draw(pose, view, 0, systemTheme(), 0, [0, 0, width, height], { ground: true, trails: [], hurry: bySoftware() });
    requestAnimationFrame(later => this.tick(later));
  }
}
