// What acts: bytes, kinematics, the clock, the controls, and `mount`, which joins them. scene.js stands in front of this file.

// ---- Bytes -------------------------------------------------------------------------------------------------------------------

function bytes(text) {
  if (Uint8Array.fromBase64) return Uint8Array.fromBase64(text);
  const raw = atob(text);
  const out = new Uint8Array(raw.length);
  for (let i = 0; i < raw.length; i++) out[i] = raw.charCodeAt(i);
  return out;
}

const array = (Type, text) => new Type(bytes(text).buffer);

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

// Forward kinematics: joint positions, and for every joint the 3x4 matrix that carries a vertex from the rest pose to now.
class Dance {
  constructor(data) {
    Object.assign(this, { fps: data.fps, frames: data.frames, ground: data.ground, ...data.skeleton });
    this.poses = array(Int16Array, data.poses);
    this.trans = array(Float32Array, data.trans);
    this.rest = [];
    this.offsets.forEach((offset, j) => this.rest.push(j ? offset.map((x, i) => x + this.rest[this.parents[j]][i]) : offset));
    this.path = smoothPath(this.trans, this.frames, Math.round(1.5 * this.fps));
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
    Object.assign(this, { audio, soundLength, length, playing: false, rate: 1, loop: false, mark: 0, wall: 0, start: 0, heard: 0, moving: false });
  }

  get sounding() { return this.audio && !this.audio.error && !this.audio.ended && this.mark < this.soundLength - .01; }

  get time() {
    if (!this.playing) return this.mark;
    const now = performance.now();
    let time = this.mark + (now - this.wall) / 1000 * this.rate;
    if (this.sounding) time = this.follow(time);
    this.wall = now;
    this.mark = time;
    if (time >= this.length) this.finish();
    return this.mark;
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
    this.mark = this.length;
    if (this.loop) this.seek(0);
    else this.pause();
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
<h1 class="title"></h1>
<p class="note" role="status"></p>
<div class="controls" role="group" aria-label="Player">
  <button class="play" title="Play or pause (space)" aria-label="Play or pause">${icon(`<path class="solid play-icon" d="M8 5.5v13l10.5-6.5z"/><path class="pause-icon" stroke-width="3.4" d="M8.5 6v12M15.5 6v12"/>`)}</button>
  <div class="clock" title="Time and frame"><span class="time">0:00.0</span><small> / <span class="length"></span></small></div>
  <div class="scrub"><svg class="beats" aria-hidden="true"><path/></svg><input type="range" min="0" step="any" value="0" aria-label="Position"></div>
  <select title="Speed" aria-label="Speed">${[.25, .5, .75, 1, 1.25, 1.5, 2].map(x => `<option value="${x}"${x === 1 ? " selected" : ""}>${x}×</option>`).join("")}</select>
  <button class="sound" aria-pressed="true" title="Sound (m)" aria-label="Sound">${icon(`<path class="solid" d="M4 9.5v5h3.5L12 18.5v-13L7.5 9.5z"/><path class="waves" d="M15.5 9a4 4 0 0 1 0 6M18 6.5a8 8 0 0 1 0 11"/><path class="cross" d="M16 9.5l5 5M21 9.5l-5 5"/>`)}</button>
  <button class="loop" aria-pressed="false" title="Loop (l)" aria-label="Loop">${icon(`<path d="M4 12V10a3.5 3.5 0 0 1 3.5-3.5H19M16 3.5l3 3-3 3M20 12v2a3.5 3.5 0 0 1-3.5 3.5H5M8 20.5l-3-3 3-3"/>`)}</button>
  <button class="follow" aria-pressed="true" title="Camera follows the dancer (c)" aria-label="Camera follows the dancer">${icon(`<circle cx="12" cy="12" r="6.5"/><circle class="solid" cx="12" cy="12" r="1.6"/><path d="M12 2.5v3M12 18.5v3M2.5 12h3M18.5 12h3"/>`)}</button>
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

// What `mount` returns: seek(t), play(), pause(), time, frame, frames, fps, ready; the rest is its own affair.
class Player {
  constructor(element, data) {
    Object.assign(this, { element, frames: data.frames, fps: data.fps, beats: data.beats, ready: false, drawn: 0 });
    element.classList.add("a2p");
    element.tabIndex = 0;
    element.insertAdjacentHTML("beforeend", MARKUP);
    this.canvas = this.find("canvas");
    const sound = data.sound ? data.sound.seconds : 0;
    this.length = Math.max(this.frames / this.fps, sound);
    this.audio = loadSound(data.sound, this.find(".note"));
    this.clock = new Clock(this.audio, sound, this.length);
    this.dance = new Dance(data);
    this.camera = new Camera();
    this.screen = renderer(this.canvas, data, this.find(".note"));
    this.night = matchMedia("(prefers-color-scheme: dark)");
    Object.assign(this, { stale: true, last: performance.now(), pace: 16, sharpness: 1, inset: 0, wasPlaying: false });
    this.label(data.title);
    this.listen();
  }

  get time() { return this.clock.time; }
  get frame() { return this.frameAt(this.clock.time); }
  get playing() { return this.clock.playing; }

  seek(time) { this.clock.seek(time); this.redraw(); }
  pause() { this.clock.pause(); this.redraw(); }
  play() { this.redraw(); return this.clock.play().then(() => this.redraw()); }
  toggle() { this.playing ? this.pause() : this.play(); }
  step(count) { this.pause(); this.seek((Math.round(this.time * this.fps) + count) / this.fps); }

  find(name) { return this.element.querySelector(name); }
  frameAt(time) { return clamp(Math.round(time * this.fps), 0, this.frames - 1); }
  redraw() { this.stale = true; }

  label(title) {
    this.find(".title").textContent = title;
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
    on("input", "input", event => this.seek(event.target.valueAsNumber));
    on("select", "change", event => this.clock.setRate(Number(event.target.value)));
    listenToPointer(this.canvas, this.camera, () => this.toggle(), () => this.redraw());
    listenToKeys(this.element, this.keys());
    this.night.addEventListener("change", () => this.redraw());
    this.screen.onrestore = () => this.redraw();
    new ResizeObserver(() => this.fit()).observe(this.canvas);
  }

  keys() {
    const jump = seconds => this.seek(this.time + seconds), zoom = factor => { this.camera.zoomBy(factor); this.redraw(); };
    const play = () => this.toggle(), home = () => { this.camera.reset(); this.redraw(); };
    return {
      " ": play, k: play, m: () => this.mute(), l: () => this.repeat(), c: () => this.track(), f: () => this.fill(), r: home,
      ArrowLeft: far => jump(far ? -5 : -1), ArrowRight: far => jump(far ? 5 : 1), ArrowUp: () => zoom(.9), ArrowDown: () => zoom(1 / .9),
      ",": () => this.step(-1), ".": () => this.step(1), Home: () => this.seek(0), End: () => this.seek(this.length),
    };
  }

  press(name) { // Turn a toggle button over; is it on now?
    const button = this.find(name), on = button.getAttribute("aria-pressed") !== "true";
    button.setAttribute("aria-pressed", on);
    this.redraw();
    return on;
  }

  mute() { if (this.audio) this.audio.muted = !this.press(".sound"); }
  repeat() { this.clock.loop = this.press(".loop"); }
  track() { this.camera.follow = this.press(".follow"); }
  fill() { document.fullscreenElement ? document.exitFullscreen() : this.element.requestFullscreen?.(); }

  fit() { // One canvas pixel per screen pixel, up to two per CSS pixel
    const { canvas } = this, ratio = (this.playing ? this.sharpness : 1) * Math.min(devicePixelRatio || 1, 2);
    const width = Math.max(1, Math.round(canvas.clientWidth * ratio)), height = Math.max(1, Math.round(canvas.clientHeight * ratio));
    if (canvas.width !== width || canvas.height !== height) Object.assign(canvas, { width, height });
    const covered = canvas.getBoundingClientRect().bottom - this.find(".controls").getBoundingClientRect().top;
    this.inset = clamp(covered / Math.max(1, canvas.clientHeight), 0, .5);
    this.find(".beats path").setAttribute("d", beatTicks(this.beats, this.length, this.find(".beats").clientWidth));
    this.redraw();
  }

  // A machine that cannot keep up gets a coarser picture while it plays, rather than a jerky one; never finer again, lest it swing.
  easeOff(milliseconds) {
    this.pace += .08 * (Math.min(milliseconds, 200) - this.pace);
    if (this.pace < 32 || this.sharpness < .5) return;
    this.sharpness *= .8;
    this.pace = 16;
    this.fit();
  }

  showTime(time) {
    const scrub = this.find("input");
    this.element.classList.toggle("playing", this.playing);
    this.find(".time").textContent = clockText(time);
    this.find(".clock").title = `${time.toFixed(3)} s, frame ${this.frameAt(time)} of ${this.frames}`;
    scrub.value = time;
    scrub.setAttribute("aria-valuetext", `${clockText(time)} of ${clockText(this.length)}`);
    scrub.style.setProperty("--done", `${100 * time / this.length}%`);
  }

  draw(time) { // At rest exactly one frame, in motion wherever between two frames the song is
    const place = this.playing ? clamp(time * this.fps, 0, this.frames - 1) : this.frameAt(time);
    const pose = this.dance.at(place), { ground } = this.dance;
    const view = this.camera.view(pose.path, ground, this.canvas.width / this.canvas.height, this.inset);
    const pulse = this.playing ? Math.exp(-5 * (time - lastBeat(this.beats, time))) : 0;
    this.screen.draw(pose, view, ground, this.night.matches ? "dark" : "light", pulse);
    this.drawn++;
  }

  tick(now) {
    if (!this.element.isConnected) return this.pause(); // Taken off the page: be quiet
    const time = this.time, gliding = this.camera.glide(Math.min((now - this.last) / 1000, .1));
    if (this.playing && this.wasPlaying) this.easeOff(now - this.last);
    if (this.playing !== this.wasPlaying) this.fit();
    this.wasPlaying = this.playing;
    this.last = now;
    if (this.playing || gliding || this.stale) {
      this.stale = false;
      this.showTime(time);
      this.draw(time);
    }
    requestAnimationFrame(later => this.tick(later));
  }

  begin() {
    this.fit();
    requestAnimationFrame(now => { this.tick(now); this.ready = true; });
  }
}

export function mount(element, data) {
  const player = new Player(element, data);
  player.begin();
  return player;
}
