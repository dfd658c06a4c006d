// What acts: bytes, kinematics, the clock, the controls, and `mount`, which joins them. scene.js stands in front of this file.

// ---- Bytes -------------------------------------------------------------------------------------------------------------------

function bytes(text) { // Base64, or bytes already
  if (typeof text !== "string") return text;
  if (Uint8Array.fromBase64) return Uint8Array.fromBase64(text);
  const raw = atob(text);
  const out = new Uint8Array(raw.length);
  for (let i = 0; i < raw.length; i++) out[i] = raw.charCodeAt(i);
  return out;
}

const array = (Type, text) => new Type(bytes(text).slice().buffer);

// What Python's `pack` made: a gzip of the header's length, the header in JSON, and all bytes; the header says where each part lies.
async function unpack(packed) {
  const stream = new Blob([packed]).stream().pipeThrough(new DecompressionStream("gzip"));
  const whole = new Uint8Array(await new Response(stream).arrayBuffer()), size = new DataView(whole.buffer).getUint32(0, true);
  const part = (_, x) => x && x.part ? whole.subarray(4 + size + x.part[0], 4 + size + x.part[0] + x.part[1]) : x;
  return JSON.parse(new TextDecoder().decode(whole.subarray(4, 4 + size)), part);
}

// Poses that were packed as differences from frame to frame, one row for each number, low bytes before high ones.
function addUp(poses, frames) {
  const coded = bytes(poses), out = new Int16Array(72 * frames), half = coded.length / 2;
  for (let c = 0; c < 72; c++) {
    for (let f = 0, x = 0; f < frames; f++) {
      const i = c * frames + f;
      out[72 * f + c] = x = (x + coded[i] + 256 * coded[half + i]) << 16 >> 16;
    }
  }
  return out;
}

// ---- Kinematics --------------------------------------------------------------------------------------------------------------

// Quaternion [x, y, z, w] of the axis-angle that starts at `i`; angles were stored as int16, half a turn = 32767.
function quaternion(poses, i) {
  const s = Math.PI / 32767;
  const x = s * poses[i], y = s * poses[i + 1], z = s * poses[i + 2];
  const angle = Math.hypot(x, y, z);
  const k = angle > 1e-9 ? Math.sin(angle / 2) / angle : .5;
  return [k * x, k * y, k * z, Math.cos(angle / 2)];
}

// Between two frames rotations are blended and normalised ("nlerp"), the shorter way round; a 60th of a second apart that is slerp.
function blend(a, b, t) {
  const sign = a[0] * b[0] + a[1] * b[1] + a[2] * b[2] + a[3] * b[3] < 0 ? -1 : 1;
  const q = a.map((x, i) => (1 - t) * x + t * sign * b[i]);
  const size = Math.hypot(...q);
  return q.map(x => x / size);
}

function quaternionToMatrix([x, y, z, w]) { // Row by row
  return [
    1 - 2 * (y * y + z * z), 2 * (x * y - z * w), 2 * (x * z + y * w),
    2 * (x * y + z * w), 1 - 2 * (x * x + z * z), 2 * (y * z - x * w),
    2 * (x * z - y * w), 2 * (y * z + x * w), 1 - 2 * (x * x + y * y)];
}

function multiply3(a, b) {
  const out = new Array(9);
  for (let r = 0; r < 3; r++) for (let c = 0; c < 3; c++) out[3 * r + c] = a[3 * r] * b[c] + a[3 * r + 1] * b[3 + c] + a[3 * r + 2] * b[6 + c];
  return out;
}

const turn = (m, v) => [0, 3, 6].map(r => m[r] * v[0] + m[r + 1] * v[1] + m[r + 2] * v[2]);

// Left is red and right is blue, as in every picture of this package.
const RED = [.86, .33, .22], BLUE = [.20, .52, .78];
const TRAILED = [{ joint: 22, colour: RED }, { joint: 23, colour: BLUE }, { joint: 10, colour: RED }, { joint: 11, colour: BLUE }];

// Forward kinematics: joint positions, and for every joint the 3x4 matrix that carries a vertex from the rest pose to now.
class Dance {
  constructor(data) {
    Object.assign(this, { fps: data.fps, frames: data.frames, ground: data.ground, ...data.skeleton });
    this.poses = data.differences ? addUp(data.poses, data.frames) : array(Int16Array, data.poses);
    this.trans = array(Float32Array, data.trans);
    this.rest = [];
    this.offsets.forEach((offset, j) => this.rest.push(j ? offset.map((x, i) => x + this.rest[this.parents[j]][i]) : offset));
    this.path = smoothPath(this.trans, this.frames, Math.round(1.5 * this.fps));
    this.seen = new Map();
  }

  ends(frame) { // Where hands and feet are, remembered
    if (!this.seen.has(frame)) {
      const { positions } = this.at(frame);
      this.seen.set(frame, TRAILED.map(({ joint }) => positions[joint]));
    }
    return this.seen.get(frame);
  }

  trails(place, pose) { // The last second and a half, newest first
    const stride = Math.max(1, Math.round(this.fps / 30)), frames = [];
    for (let f = Math.ceil(place) - 1; f >= 0 && place - f < 1.5 * this.fps; f--) if (f % stride === 0) frames.push(f);
    return TRAILED.map(({ joint, colour }, k) => ({ colour, points: [pose.positions[joint], ...frames.map(f => this.ends(f)[k])] }));
  }

  at(place) { // `place` in frames, may lie between two
    const a = Math.min(Math.floor(place), this.frames - 1), b = Math.min(a + 1, this.frames - 1), t = place - a;
    const mix = (values, i) => values[3 * a + i] + (values[3 * b + i] - values[3 * a + i]) * Math.min(t, 1);
    const rotations = [], positions = [], matrices = new Float32Array(288);
    this.parents.forEach((parent, j) => {
      const qa = quaternion(this.poses, 72 * a + 3 * j);
      const local = quaternionToMatrix(t > 0 && b > a ? blend(qa, quaternion(this.poses, 72 * b + 3 * j), t) : qa);
      rotations[j] = j ? multiply3(rotations[parent], local) : local;
      positions[j] = j ? turn(rotations[parent], this.offsets[j]).map((x, i) => x + positions[parent][i]) : [0, 1, 2].map(i => mix(this.trans, i));
      const shift = turn(rotations[j], this.rest[j]);
      for (let r = 0; r < 3; r++) matrices.set([...rotations[j].slice(3 * r, 3 * r + 3), positions[j][r] - shift[r]], 12 * j + 4 * r);
    });
    return { positions, matrices, path: [mix(this.path, 0), this.ground, mix(this.path, 2)] };
  }
}

// Where a calm camera looks: the root's path averaged over `width` frames to either side. It depends on the time alone, so a seek
// shows what playing would have shown.
function smoothPath(trans, frames, width) {
  const sums = new Float64Array(3 * (frames + 1));
  for (let i = 0; i < 3 * frames; i++) sums[i + 3] = sums[i] + trans[i];
  const path = new Float32Array(3 * frames);
  for (let f = 0; f < frames; f++) {
    const reach = Math.min(width, f, frames - 1 - f), from = f - reach, to = f + reach + 1; // Narrower at the ends
    for (let i = 0; i < 3; i++) path[3 * f + i] = (sums[3 * to + i] - sums[3 * from + i]) / (to - from);
  }
  return path;
}

// ---- Clock -------------------------------------------------------------------------------------------------------------------

// The song is the clock. `audio.currentTime` moves in steps, so between them we count on with performance.now, and lean gently
// towards the song: no jitter, no drift. Before the sound has really started we wait; after its end we count alone.
class Clock {
  constructor(audio, soundLength, length) {
    Object.assign(this, { audio, soundLength, length, playing: false, rate: 1, loop: false, region: null, mark: 0, wall: 0, start: 0, asked: 0, heard: 0, moving: false, mute: false });
  }

  get sounding() { return this.audio && !this.mute && !this.audio.error && !this.audio.ended && this.mark < this.soundLength - .01; }
  get end() { return this.loop && this.region ? this.region[1] : this.length; }

  get time() {
    if (!this.playing) return this.mark;
    const now = performance.now();
    let time = this.mark + (now - this.wall) / 1000 * this.rate;
    this.listen(now);
    if (this.sounding) time = this.follow(time);
    this.wall = now;
    this.mark = time;
    if (time >= this.end) this.finish();
    return this.mark;
  }

  // A song that is ready and yet does not move for two seconds has no device to sound on: dance without it until it does.
  listen(now) {
    if (!this.audio) return;
    if (this.mute) this.mute = this.audio.currentTime === this.start;
    else if (!this.moving && this.mark < this.soundLength - .01 && this.audio.readyState > 2 && !this.audio.seeking && now - this.asked > 2000) {
      this.mute = this.audio.currentTime === this.start;
      if (this.mute) this.onmute?.();
    }
  }

  // Only a value that has just changed says where the song is; an old one lags behind by the length of its step.
  follow(time) {
    const heard = this.audio.currentTime, fresh = heard !== this.heard;
    if (this.audio.seeking || !(this.moving ||= fresh && !this.audio.paused)) return this.mark;
    if (!fresh) return time - heard < .25 ? time : this.mark; // The song has stalled: wait for it
    const started = this.heard === this.start, gap = heard - time;
    this.heard = heard;
    return started || Math.abs(gap) > .08 ? heard : Math.max(this.mark, time + .1 * gap);
  }

  finish() {
    if (this.loop) return this.seek(this.region ? this.region[0] : 0);
    this.mark = this.length;
    this.pause();
  }

  seek(time) {
    this.mark = Math.max(0, Math.min(this.length, Number(time) || 0));
    this.wall = performance.now();
    if (this.audio) this.audio.currentTime = Math.min(this.mark, this.soundLength);
    if (this.playing) this.startSound();
  }

  async play() {
    if (this.mark >= this.length - 1e-3) this.seek(0);
    this.playing = true;
    this.wall = performance.now();
    await this.startSound();
  }

  async startSound() {
    if (!this.audio || this.mark >= this.soundLength - .01) return;
    this.moving = false;
    this.asked = performance.now();
    this.audio.currentTime = this.mark;
    this.start = this.heard = this.audio.currentTime;
    this.audio.playbackRate = this.rate;
    try { await this.audio.play(); }
    catch (error) {
      if (error.name === "NotAllowedError") this.playing = false; // The browser wants a click first: stay at rest, the button says play
    }
  }

  pause() {
    this.mark = this.playing ? this.settle() : this.mark;
    this.playing = false;
    if (this.audio) this.audio.pause();
  }

  settle() { // The last moment shown, not one that nobody saw
    return this.sounding && this.moving && Math.abs(this.audio.currentTime - this.mark) > .05 ? this.audio.currentTime : this.mark;
  }

  setRate(rate) {
    this.mark = this.time;
    this.rate = rate;
    if (this.audio) this.audio.playbackRate = rate;
  }
}

// ---- Controls ----------------------------------------------------------------------------------------------------------------

const icon = inner => `<svg viewBox="0 0 24 24" aria-hidden="true">${inner}</svg>`;

// Fixed text only: whatever came from outside, like the title, is set with textContent.
const MARKUP = `
<canvas aria-label="A dancer, in three dimensions. Drag to turn, scroll to zoom."></canvas>
<div class="names" hidden></div>
<h1 class="title"></h1>
<p class="note" role="status"></p>
<div class="controls" role="group" aria-label="Player">
  <button class="play" title="Play or pause (space)" aria-label="Play or pause">${icon(`<path class="solid play-icon" d="M8 5.5v13l10.5-6.5z"/><path class="pause-icon" stroke-width="3.4" d="M8.5 6v12M15.5 6v12"/>`)}</button>
  <div class="clock" title="Time and frame"><span class="time">0:00.0</span><small> / <span class="length"></span></small></div>
  <div class="scrub"><div class="region" hidden></div><svg class="beats" aria-hidden="true"><path/></svg><input type="range" min="0" step="any" value="0" aria-label="Position"></div>
  <select title="Speed" aria-label="Speed">${[.25, .5, .75, 1, 1.25, 1.5, 2].map(x => `<option value="${x}"${x === 1 ? " selected" : ""}>${x}×</option>`).join("")}</select>
  <button class="sound" aria-pressed="true" title="Sound (m)" aria-label="Sound">${icon(`<path class="solid" d="M4 9.5v5h3.5L12 18.5v-13L7.5 9.5z"/><path class="waves" d="M15.5 9a4 4 0 0 1 0 6M18 6.5a8 8 0 0 1 0 11"/><path class="cross" d="M16 9.5l5 5M21 9.5l-5 5"/>`)}</button>
  <button class="loop" aria-pressed="false" title="Loop (l); drag along the time line with shift, or press [ and ], to loop a part" aria-label="Loop">${icon(`<path d="M4 12V10a3.5 3.5 0 0 1 3.5-3.5H19M16 3.5l3 3-3 3M20 12v2a3.5 3.5 0 0 1-3.5 3.5H5M8 20.5l-3-3 3-3"/>`)}</button>
  <button class="follow" aria-pressed="true" title="Camera follows the dancer (c)" aria-label="Camera follows the dancer">${icon(`<circle cx="12" cy="12" r="6.5"/><circle class="solid" cx="12" cy="12" r="1.6"/><path d="M12 2.5v3M12 18.5v3M2.5 12h3M18.5 12h3"/>`)}</button>
  <button class="trails" aria-pressed="false" title="Trails of hands and feet (t)" aria-label="Trails of hands and feet">${icon(`<path d="M4 19c5 0 3-8 8-8s3-6 8-6"/><circle class="solid" cx="20" cy="5" r="1.6"/>`)}</button>
  <button class="ground" aria-pressed="true" title="Floor (g)" aria-label="Floor">${icon(`<path d="M8 8h8l5 9H3zM12 8v9M5.5 12.5h13"/>`)}</button>
  <button class="full" title="Full screen (f)" aria-label="Full screen">${icon(`<path d="M4 9V4h5M20 9V4h-5M4 15v5h5M20 15v5h-5"/>`)}</button>
</div>`;

const clockText = seconds => `${Math.floor(seconds / 60)}:${(seconds % 60 < 10 ? "0" : "")}${(Math.floor(seconds % 60 * 10) / 10).toFixed(1)}`;

// Beats as a row of ticks along `width` pixels; when they are too close to tell apart, every second, fourth, ... of them.
function beatTicks(beats, length, width) {
  const inside = beats.filter(t => t >= 0 && t <= length);
  let stride = 1;
  while (width / (inside.length / stride) < 5) stride *= 2;
  return inside.filter((_, i) => i % stride === 0).map(t => `M${(Math.round(t / length * width) + .5)} 5v5`).join("");
}

function lastBeat(beats, time) { // The latest beat that is not after `time`
  let low = 0, high = beats.length;
  while (low < high) {
    const middle = (low + high) >> 1;
    if (beats[middle] <= time) low = middle + 1;
    else high = middle;
  }
  return low ? beats[low - 1] : -Infinity;
}

// Drag turns, two fingers or the wheel zoom, a click without a drag plays or pauses.
function listenToPointer(canvas, camera, click, redraw) {
  const held = new Map();
  let moved = 0, spread = 0;
  const gap = () => { const [a, b] = [...held.values()]; return Math.hypot(a.x - b.x, a.y - b.y); };
  canvas.addEventListener("pointerdown", event => {
    canvas.setPointerCapture(event.pointerId);
    held.set(event.pointerId, { x: event.clientX, y: event.clientY });
    if (held.size === 1) moved = 0;
    if (held.size === 2) spread = gap();
  });
  canvas.addEventListener("pointermove", event => {
    const last = held.get(event.pointerId);
    if (!last) return;
    const dx = event.clientX - last.x, dy = event.clientY - last.y;
    held.set(event.pointerId, { x: event.clientX, y: event.clientY });
    moved += Math.abs(dx) + Math.abs(dy);
    if (held.size === 1) camera.orbit(.008 * dx, .006 * dy);
    if (held.size === 2) { camera.zoomBy(spread / gap()); spread = gap(); }
    redraw();
  });
  const release = event => {
    if (held.size === 1 && held.has(event.pointerId) && moved < 5 && event.type === "pointerup") click();
    if (held.size === 2) moved = Infinity;
    held.delete(event.pointerId);
  };
  canvas.addEventListener("pointerup", release);
  canvas.addEventListener("pointercancel", release);
  canvas.addEventListener("dblclick", () => { camera.reset(); redraw(); });
  canvas.addEventListener("wheel", event => {
    event.preventDefault();
    camera.zoomBy(Math.exp(clamp(event.deltaY * (event.deltaMode ? 30 : 1), -200, 200) * .0012));
    redraw();
  }, { passive: false });
}

// With shift held, a drag along the time line marks a part of it.
function listenToScrub(input, length, mark) {
  const timeAt = event => {
    const box = input.getBoundingClientRect();
    return clamp((event.clientX - box.left - 7) / (box.width - 14), 0, 1) * length;
  };
  let from = null;
  input.addEventListener("pointerdown", event => {
    if (!event.shiftKey) return;
    event.preventDefault();
    input.setPointerCapture(event.pointerId);
    from = timeAt(event);
  });
  input.addEventListener("pointermove", event => { if (from !== null) mark(from, timeAt(event)); });
  for (const end of ["pointerup", "pointercancel"]) input.addEventListener(end, () => { from = null; });
}

function listenToKeys(element, actions) {
  element.addEventListener("keydown", event => {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    const choosing = event.target.tagName === "SELECT", button = event.target.tagName === "BUTTON";
    if (choosing || (button && (event.key === " " || event.key === "Enter"))) return; // They have their own use for it
    const action = actions[event.key.length === 1 ? event.key.toLowerCase() : event.key];
    if (!action) return;
    event.preventDefault();
    action(event.shiftKey);
  });
}

// ---- Mount -------------------------------------------------------------------------------------------------------------------

function loadSound(sound, note) {
  if (!sound) return null;
  const audio = new Audio();
  audio.preload = "auto";
  audio.addEventListener("error", () => { note.textContent = "This browser cannot play the song, so the dancer dances in silence."; });
  audio.src = URL.createObjectURL(new Blob([bytes(sound.data)], { type: sound.type }));
  return audio;
}

const systemTheme = () => matchMedia("(prefers-color-scheme: dark)").matches ? "dark" : "light";

// What `mount` returns: seek(t), play(), pause(), time, frame, frames, fps, ready; the rest is its own affair. `data` holds one
// motion, or several as `dancers`, who then dance side by side to one song. `stay`: go on when the page takes the element off for a
// while, as notebooks do with cells that are scrolled away; whoever says so calls `dispose` in the end.
class Player {
  constructor(element, data, { theme = systemTheme, stay = false } = {}) {
    this.dances = (data.dancers || [data]).map(motion => new Dance({ skeleton: data.skeleton, ...motion }));
    const { frames, fps } = this.dances.reduce((a, b) => b.frames / b.fps > a.frames / a.fps ? b : a);
    Object.assign(this, { element, frames, fps, beats: data.beats, theme, stay, ready: false, drawn: 0 });
    element.classList.add("a2p");
    element.classList.toggle("plain", bySoftware());
    element.tabIndex = 0;
    element.insertAdjacentHTML("beforeend", MARKUP);
    this.canvas = this.find("canvas");
    const sound = data.sound ? data.sound.seconds : 0;
    this.length = Math.max(this.frames / this.fps, sound);
    this.audio = loadSound(data.sound, this.find(".note"));
    this.clock = new Clock(this.audio, sound, this.length);
    this.clock.onmute = () => { this.find(".note").textContent = "The song does not start (is there a device to hear it on?), so the dancer dances in silence."; };
    this.camera = new Camera();
    this.screen = renderer(this.canvas, data, this.find(".note"));
    Object.assign(this, { stale: true, last: performance.now(), pace: 16, sharpness: bySoftware() ? .7 : 1, inset: 0, wasPlaying: false, visible: true, awake: false });
    this.label(data.title, (data.dancers || []).map(motion => motion.name || ""));
    this.paint();
    this.listen();
  }

  get time() { return this.clock.time; }
  get frame() { return this.frameAt(this.clock.time); }
  get playing() { return this.clock.playing; }
  get region() { return this.clock.region; }
  get rate() { return this.clock.rate; }
  get loop() { return this.clock.loop; }
  get trails() { return this.pressed(".trails"); }
  get ground() { return this.pressed(".ground"); }

  set rate(rate) {
    const select = this.find("select"), known = [...select.options].map(option => Number(option.value));
    if (!known.includes(rate)) select.insertAdjacentHTML("beforeend", `<option value="${rate}">${rate}×</option>`);
    select.value = rate;
    this.clock.setRate(rate);
  }

  set region(region) { // Two times, or null for the whole
    const ends = region && region.map(t => clamp(t, 0, this.length)).sort((a, b) => a - b);
    this.clock.region = ends && ends[1] - ends[0] > .05 ? ends : null;
    const band = this.find(".region"), share = t => 100 * t / this.length;
    band.hidden = !this.clock.region;
    if (this.clock.region) Object.assign(band.style, { left: `${share(ends[0])}%`, width: `${share(ends[1] - ends[0])}%` });
    this.redraw();
  }

  seek(time) { this.clock.seek(time); this.redraw(); }
  pause() { this.clock.pause(); this.redraw(); }
  play() { this.redraw(); return this.clock.play().then(() => this.redraw()); }
  toggle() { this.playing ? this.pause() : this.play(); }
  step(count) { this.pause(); this.seek((Math.round(this.time * this.fps) + count) / this.fps); }

  find(name) { return this.element.querySelector(name); }
  frameAt(time) { return clamp(Math.round(time * this.fps), 0, this.frames - 1); }
  redraw() { this.stale = true; }
  pressed(name) { return this.find(name).getAttribute("aria-pressed") === "true"; }

  paint() { // Light or dark, as the page around says
    const dark = this.theme() === "dark";
    this.element.classList.toggle("dark", dark);
    this.palette = dark ? "dark" : "light";
    this.redraw();
  }

  label(title, names) {
    this.find(".title").textContent = title;
    this.find(".names").hidden = !names.some(name => name);
    for (const name of names) this.find(".names").appendChild(document.createElement("span")).textContent = name;
    this.find(".length").textContent = clockText(this.length);
    this.find(".sound").hidden = !this.audio;
    this.find(".full").hidden = !document.fullscreenEnabled;
    this.find("input").max = this.length;
  }

  listen() {
    const on = (name, event, action) => this.find(name).addEventListener(event, action);
    on(".play", "click", () => this.toggle());
    on(".sound", "click", () => this.mute());
    on(".loop", "click", () => this.repeat());
    on(".follow", "click", () => this.track());
    on(".full", "click", () => this.fill());
    on(".trails", "click", () => this.press(".trails"));
    on(".ground", "click", () => this.press(".ground"));
    on("input", "input", event => this.seek(event.target.valueAsNumber));
    on("select", "change", event => this.clock.setRate(Number(event.target.value)));
    listenToScrub(this.find("input"), this.length, (from, to) => { this.region = [from, to]; this.repeat(true); });
    listenToPointer(this.canvas, this.camera, () => this.toggle(), () => this.redraw());
    listenToKeys(this.element, this.keys());
    this.night = matchMedia("(prefers-color-scheme: dark)");
    this.night.addEventListener("change", this.onnight = () => this.paint());
    this.screen.onrestore = () => this.redraw();
    this.watchers = [new ResizeObserver(() => this.fit()), new IntersectionObserver(seen => this.show(seen.at(-1).isIntersecting))];
    for (const watcher of this.watchers) watcher.observe(this.canvas);
  }

  keys() {
    const jump = seconds => this.seek(this.time + seconds), zoom = factor => { this.camera.zoomBy(factor); this.redraw(); };
    const play = () => this.toggle(), home = () => { this.camera.reset(); this.redraw(); };
    return {
      " ": play, k: play, m: () => this.mute(), l: () => this.repeat(), c: () => this.track(), f: () => this.fill(), r: home,
      t: () => this.press(".trails"), g: () => this.press(".ground"), Escape: () => { this.region = null; },
      "[": () => this.mark(this.time, this.region ? this.region[1] : this.length), "]": () => this.mark(this.region ? this.region[0] : 0, this.time),
      ArrowLeft: far => jump(far ? -5 : -1), ArrowRight: far => jump(far ? 5 : 1), ArrowUp: () => zoom(.9), ArrowDown: () => zoom(1 / .9),
      ",": () => this.step(-1), ".": () => this.step(1), Home: () => this.seek(0), End: () => this.seek(this.length),
    };
  }

  press(name, on = !this.pressed(name)) { // Turn a toggle button over, or to `on`; is it on now?
    this.find(name).setAttribute("aria-pressed", on);
    this.redraw();
    return on;
  }

  mark(from, to) { // Loop a part
    this.region = [from, to];
    this.repeat(true);
  }

  mute() { if (this.audio) this.audio.muted = !this.press(".sound"); }
  repeat(on) { this.clock.loop = this.press(".loop", on); }
  track() { this.camera.follow = this.press(".follow"); }
  fill() { document.fullscreenElement ? document.exitFullscreen() : this.element.requestFullscreen?.(); }

  fit() { // One canvas pixel per screen pixel, up to two per CSS pixel
    const { canvas } = this, ratio = (this.playing ? this.sharpness : 1) * Math.min(devicePixelRatio || 1, 2);
    const width = Math.max(1, Math.round(canvas.clientWidth * ratio)), height = Math.max(1, Math.round(canvas.clientHeight * ratio));
    if (canvas.width !== width || canvas.height !== height) Object.assign(canvas, { width, height });
    const covered = canvas.getBoundingClientRect().bottom - this.find(".controls").getBoundingClientRect().top;
    this.inset = clamp(covered / Math.max(1, canvas.clientHeight), 0, .5);
    this.grain = Math.max(1 / 30, Math.min(.1, this.length / Math.max(1, this.find("input").clientWidth))); // s: a pixel of the slider, or a digit of the clock
    this.find(".beats path").setAttribute("d", beatTicks(this.beats, this.length, this.find(".beats").clientWidth));
    this.redraw();
    this.wake();
  }

  show(visible) { // Out of sight nothing need be drawn
    this.visible = visible;
    if (visible) this.redraw();
    this.wake();
  }

  // A machine that cannot keep up gets a coarser picture while it plays, rather than a jerky one; never finer again, lest it swing.
  easeOff(milliseconds) {
    this.pace += .08 * (Math.min(milliseconds, 60) - this.pace); // One hiccup is no lack of strength
    if (this.pace < (bySoftware() ? 21 : 32) || this.sharpness < .45) return;
    this.sharpness *= .8;
    this.pace = 16;
    this.fit();
  }

  showTime(time) { // Not more often than it can be seen: every change is work for the browser
    const still = this.playing === this.shownPlaying && this.playing;
    if (still && Math.abs(time - this.shownTime) < this.grain) return;
    Object.assign(this, { shownPlaying: this.playing, shownTime: time });
    const scrub = this.find("input");
    this.element.classList.toggle("playing", this.playing);
    this.find(".time").textContent = clockText(time);
    this.find(".clock").title = `${time.toFixed(3)} s, frame ${this.frameAt(time)} of ${this.frames}`;
    scrub.value = time;
    scrub.setAttribute("aria-valuetext", `${clockText(time)} of ${clockText(this.length)}`);
    scrub.style.setProperty("--done", `${100 * time / this.length}%`);
  }

  draw(time) { // At rest exactly one frame, in motion wherever between two frames the song is
    const { canvas, dances } = this, pulse = this.playing ? Math.exp(-5 * (time - lastBeat(this.beats, time))) : 0;
    const ground = this.ground, trails = this.trails;
    dances.forEach((dance, i) => {
      const place = clamp(this.playing ? time * dance.fps : Math.round(time * dance.fps), 0, dance.frames - 1), pose = dance.at(place);
      const left = Math.round(i * canvas.width / dances.length), right = Math.round((i + 1) * canvas.width / dances.length);
      const view = this.camera.view(pose.path, dance.ground, (right - left) / canvas.height, this.inset, i);
      const shown = { ground, trails: trails ? dance.trails(place, pose) : [], hurry: this.playing && dances.length === 1 && bySoftware() };
      this.screen.draw(pose, view, dance.ground, this.palette, pulse, [left, 0, right - left, canvas.height], shown);
    });
    this.drawn++;
  }

  tick(now) {
    this.awake = this.element.isConnected && !this.gone;
    if (!this.awake) return this.stay || this.pause(); // Taken off the page: be quiet
    const time = this.time, gliding = this.camera.glide(Math.min((now - this.last) / 1000, .1));
    if (this.playing && this.wasPlaying) this.easeOff(now - this.last);
    if (this.playing !== this.wasPlaying) this.fit();
    this.wasPlaying = this.playing;
    this.last = now;
    if (this.visible && (this.playing || gliding || this.stale)) {
      this.stale = false;
      this.showTime(time);
      this.draw(time);
    }
    this.ontick?.();
    requestAnimationFrame(later => this.tick(later));
  }

  wake() {
    if (this.awake || !this.ready) return;
    this.awake = true;
    requestAnimationFrame(now => this.tick(now));
  }

  begin() {
    this.fit();
    requestAnimationFrame(now => { this.tick(now); this.ready = true; });
  }

  dispose() { // For good
    this.gone = true;
    this.pause();
    this.night.removeEventListener("change", this.onnight);
    for (const watcher of this.watchers) watcher.disconnect();
    if (this.audio) URL.revokeObjectURL(this.audio.src);
    this.screen.gl?.getExtension("WEBGL_lose_context")?.loseContext();
  }
}

export function mount(element, data, options) {
  const player = new Player(element, data, options);
  player.begin();
  return player;
}
