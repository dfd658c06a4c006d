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

const restJoints = ({ parents, offsets }) => offsets.reduce((rest, offset, j) => [...rest, j ? offset.map((x, i) => x + rest[parents[j]][i]) : offset], []);

// Forward kinematics: joint positions, and for every joint the 3x4 matrix that carries a vertex from the rest pose to now.
class Dance {
  constructor(data) {
    Object.assign(this, { fps: data.fps, frames: data.frames, ground: data.ground, ...data.skeleton });
    this.poses = data.differences ? addUp(data.poses, data.frames) : array(Int16Array, data.poses);
    this.trans = array(Float32Array, data.trans);
    this.rest = restJoints(this);
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

const toggle = (name, on, label, key, inner) => `<button class="${name}" aria-pressed="${on}" title="${label} (${key})" aria-label="${label}">${icon(inner)}</button>`;
const action = (name, label, key, inner) => `<button class="${name}" title="${label} (${key})" aria-label="${label}">${icon(inner)}</button>`;
const speeds = [.25, .5, .75, 1, 1.25, 1.5, 2].map(x => `<option value="${x}"${x === 1 ? " selected" : ""}>${x}×</option>`).join("");

const HELP = [
  ["Space", "Play or pause"], [", .", "One frame back or on"], ["Shift ← →", "One second back or on; on the time line ← →"], ["Page ↑ ↓", "Five seconds on or back"],
  ["Home End", "The beginning, the end"], ["[ ]", "Loop from here, loop to here"], ["Esc", "Loop no part"], ["l", "Loop"], ["m", "Sound"],
  ["← → ↑ ↓", "Walk around, look from higher or lower"], ["+ −", "Nearer or further"], ["1 2 3", "From the front, the side, the top"], ["r", "The first view again"],
  ["c", "Camera follows the dancer"], ["b", "Bones in place of the body"], ["t", "Trails of hands and feet"], ["g", "Floor"],
  ["p", "Save the picture"], ["v", "Save the clip: from here, or the part marked, to its end"], ["f", "Full screen"], ["?", "These keys"],
];
const TOUCH = [["Drag", "walk around"], ["Wheel, two fingers", "nearer or further"], ["Click, tap", "play or pause"], ["Double click", "the first view again"], ["Shift and drag the time line", "loop a part"]];
const rows = (pairs, tag) => pairs.map(([keys, does]) => `<div><dt>${tag ? keys.split(" ").map(key => `<kbd>${key}</kbd>`).join(" ") : keys}</dt><dd>${does}</dd></div>`).join("");

// Fixed text only: whatever came from outside, like the title, is set with textContent.
const MARKUP = `
<canvas tabindex="0" role="img" aria-label="A dancer, in three dimensions. Arrow keys walk around, plus and minus zoom, space plays, question mark lists the keys."></canvas>
<div class="names" hidden></div>
<h1 class="title"></h1>
<p class="note" role="status"></p>
<div class="controls" role="group" aria-label="Player">
  <button class="play" title="Play or pause (space)" aria-label="Play or pause">${icon(`<path class="solid play-icon" d="M8 5.5v13l10.5-6.5z"/><path class="pause-icon" stroke-width="3.4" d="M8.5 6v12M15.5 6v12"/>`)}</button>
  <div class="clock" title="Time and frame"><span class="time">0:00.0</span><small> / <span class="length"></span></small></div>
  <div class="scrub"><div class="region" hidden></div><svg class="beats" aria-hidden="true"><path/></svg><input type="range" min="0" step="any" value="0" aria-label="Position"></div>
  <select title="Speed" aria-label="Speed">${speeds}</select>
  ${toggle("sound", true, "Sound", "m", `<path class="solid" d="M4 9.5v5h3.5L12 18.5v-13L7.5 9.5z"/><path class="waves" d="M15.5 9a4 4 0 0 1 0 6M18 6.5a8 8 0 0 1 0 11"/><path class="cross" d="M16 9.5l5 5M21 9.5l-5 5"/>`)}
  ${toggle("loop", false, "Loop", "l", `<path d="M4 12V10a3.5 3.5 0 0 1 3.5-3.5H19M16 3.5l3 3-3 3M20 12v2a3.5 3.5 0 0 1-3.5 3.5H5M8 20.5l-3-3 3-3"/>`)}
  <button class="more" aria-expanded="false" title="Views, marks and saving" aria-label="Views, marks and saving">${icon(`<circle class="solid" cx="5.5" cy="12" r="1.4"/><circle class="solid" cx="12" cy="12" r="1.4"/><circle class="solid" cx="18.5" cy="12" r="1.4"/>`)}</button>
</div>
<div class="tools" role="group" aria-label="Views, marks and saving">
  <button class="view front" aria-pressed="false" title="From the front (1)">Front</button>
  <button class="view side" aria-pressed="false" title="From the side (2)">Side</button>
  <button class="view top" aria-pressed="false" title="From the top (3)">Top</button>
  ${action("home", "The first view", "r", `<path d="M4.5 11.5L12 5l7.5 6.5M6.5 10v8.5h11V10"/>`)}
  ${toggle("follow", true, "Camera follows the dancer", "c", `<circle cx="12" cy="12" r="6.5"/><circle class="solid" cx="12" cy="12" r="1.6"/><path d="M12 2.5v3M12 18.5v3M2.5 12h3M18.5 12h3"/>`)}
  ${toggle("bones", false, "Bones in place of the body", "b", `<circle cx="12" cy="5" r="2.2"/><path d="M12 7.5v6M6 9.5l6-1 6 1M12 13.5l-3.5 7M12 13.5l3.5 7"/>`)}
  ${toggle("trails", false, "Trails of hands and feet", "t", `<path d="M4 19c5 0 3-8 8-8s3-6 8-6"/><circle class="solid" cx="20" cy="5" r="1.6"/>`)}
  ${toggle("ground", true, "Floor", "g", `<path d="M8 8h8l5 9H3zM12 8v9M5.5 12.5h13"/>`)}
  ${action("from", "Loop from here", "[", `<path d="M10 4.5H6.5v15H10M11.5 12H20M17 9l3 3-3 3"/>`)}
  ${action("to", "Loop to here", "]", `<path d="M14 4.5h3.5v15H14M12.5 12H4M7 9l-3 3 3 3"/>`)}
  ${action("picture", "Save the picture", "p", `<path d="M4 8h3.5L9 5.5h6L16.5 8H20v11H4z"/><circle cx="12" cy="13" r="3.2"/>`)}
  ${toggle("clip", false, "Save the clip", "v", `<rect x="3.5" y="7" width="11.5" height="10" rx="2"/><path d="M15 11l5.5-3v8L15 13"/><circle class="solid dot" cx="9.2" cy="12" r="1.8"/>`)}
  ${action("full", "Full screen", "f", `<path d="M4 9V4h5M20 9V4h-5M4 15v5h5M20 15v5h-5"/>`)}
  <button class="keys" title="Keys (?)" aria-label="Keys">?</button>
</div>
<dialog aria-label="Keys and gestures">
  <form method="dialog"><h2>Keys</h2><button class="close" title="Close (Esc)" aria-label="Close">${icon(`<path d="M6 6l12 12M18 6L6 18"/>`)}</button></form>
  <dl>${rows(HELP, true)}</dl><h2>Hand and mouse</h2><dl>${rows(TOUCH, false)}</dl>
</dialog>`;

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
    if (event.target.closest("dialog")) return event.stopPropagation();
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    const choosing = event.target.tagName === "SELECT", button = event.target.tagName === "BUTTON";
    if (choosing || (button && (event.key === " " || event.key === "Enter"))) return; // They have their own use for it
    const action = actions[event.key.length === 1 ? event.key.toLowerCase() : event.key];
    if (!action) return;
    event.preventDefault();
    action(event);
  });
}

// ---- Saving ------------------------------------------------------------------------------------------------------------------

function download(blob, name) {
  const link = Object.assign(document.createElement("a"), { href: URL.createObjectURL(blob), download: name });
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 60_000);
}

// The canvas as it plays, with its song, in the first of these formats that the browser writes.
const CLIP_TYPES = ["video/webm;codecs=vp8,opus", "video/webm;codecs=vp9,opus", "video/webm", "video/mp4"];
const clipType = () => typeof MediaRecorder === "undefined" || !HTMLCanvasElement.prototype.captureStream ? null : CLIP_TYPES.find(type => MediaRecorder.isTypeSupported(type));

// A recorder does not know how long it will record, so its WebM says no duration, and players cannot seek. It is written afterwards, as
// the first element of the segment's Info (Matroska: 0x4489, eight bytes, in milliseconds); a file of another layout is left alone.
async function withDuration(blob, milliseconds) {
  const head = new Uint8Array(await blob.slice(0, 512).arrayBuffer()), at = head.findIndex((_, i) => [0x15, 0x49, 0xa9, 0x66].every((x, k) => head[i + k] === x));
  const size = head[at + 4] - 0x80, inside = head.subarray(at + 5, at + 5 + size), known = inside.some((x, i) => x === 0x44 && inside[i + 1] === 0x89);
  if (at < 0 || size < 0 || size + 11 > 126 || known) return blob;
  const element = new DataView(new ArrayBuffer(11));
  [0x44, 0x89, 0x88].forEach((x, i) => element.setUint8(i, x));
  element.setFloat64(3, milliseconds);
  return new Blob([head.subarray(0, at + 4), Uint8Array.of(0x80 + size + 11), element.buffer, blob.slice(at + 5)], { type: blob.type });
}

class Clip {
  constructor(canvas, audio, end) {
    const stream = canvas.captureStream(60), type = clipType(), sound = audio?.captureStream?.() ?? audio?.mozCaptureStream?.();
    for (const track of sound?.getAudioTracks() ?? []) stream.addTrack(track);
    Object.assign(this, { end, last: 0, parts: [], type: type.split(";")[0], sounding: stream.getAudioTracks().length > 0 });
    this.recorder = new MediaRecorder(stream, { mimeType: type, videoBitsPerSecond: 8e6 });
    this.recorder.ondataavailable = event => { if (event.data.size) this.parts.push(event.data); };
    this.saved = new Promise(done => { this.recorder.onstop = () => {
      stream.getTracks().forEach(track => track.stop());
      done(withDuration(new Blob(this.parts, { type: this.type }), performance.now() - this.begun));
    }; });
  }

  start(time) {
    this.recorder.start(1000);
    Object.assign(this, { last: time, begun: performance.now() });
  }

  over(time, playing) { // Is it through, or has it come round?
    const over = !playing && this.rolling || time >= this.end - .02 || time < this.last - .1;
    this.last = time;
    return this.recorder.state === "recording" && over;
  }

  stop() { if (this.recorder.state === "recording") this.recorder.stop(); }
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
// while, as notebooks do with cells that are scrolled away; whoever says so calls `dispose` in the end. `stack`: one dancer below the
// other where the picture is taller than wide.
class Player {
  constructor(element, data, { theme = systemTheme, stay = false, stack = false } = {}) {
    this.dances = (data.dancers || [data]).map(motion => new Dance({ skeleton: data.skeleton, ...motion }));
    const { frames, fps } = this.dances.reduce((a, b) => b.frames / b.fps > a.frames / a.fps ? b : a);
    Object.assign(this, { element, frames, fps, beats: data.beats, theme, stay, stack, ready: false, drawn: 0 });
    element.classList.add("a2p");
    element.classList.toggle("plain", bySoftware());
    element.insertAdjacentHTML("beforeend", MARKUP);
    this.canvas = this.find("canvas");
    const sound = data.sound ? data.sound.seconds : 0;
    this.length = Math.max(this.frames / this.fps, sound);
    this.audio = loadSound(data.sound, this.find(".note"));
    this.clock = new Clock(this.audio, sound, this.length);
    this.clock.onmute = () => { this.find(".note").textContent = "The song does not start (is there a device to hear it on?), so the dancer dances in silence."; };
    this.camera = new Camera();
    this.calm = matchMedia("(prefers-reduced-motion: reduce)");
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
  get bones() { return this.pressed(".bones"); }

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
  redraw() { this.stale = true; this.wake(); }
  pressed(name) { return this.find(name).getAttribute("aria-pressed") === "true"; }

  paint() { // Light or dark, as the page around says
    const dark = this.theme() === "dark";
    this.element.classList.toggle("dark", dark);
    this.palette = dark ? "dark" : "light";
    this.redraw();
  }

  label(title, names) {
    this.find(".title").textContent = title;
    this.find(".names").hidden = names.length < 2 && !names.some(name => name);
    for (const name of names) this.find(".names").appendChild(document.createElement("span")).textContent = name;
    this.find(".length").textContent = clockText(this.length);
    this.find(".sound").hidden = !this.audio;
    this.find(".full").hidden = !document.fullscreenEnabled;
    this.find(".bones").hidden = !this.screen.gl;
    this.find(".clip").hidden = !clipType();
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
    on(".bones", "click", () => this.press(".bones"));
    for (const name in VIEWS) on(`.${name}`, "click", () => this.look(name));
    on(".home", "click", () => this.look());
    on(".from", "click", () => this.markFrom());
    on(".to", "click", () => this.markTo());
    on(".picture", "click", () => this.savePicture());
    on(".clip", "click", () => this.saveClip());
    on(".keys", "click", () => this.help());
    on(".more", "click", () => this.expand());
    on("dialog", "click", event => { if (event.target === event.currentTarget) event.target.close(); });
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
    const jump = seconds => this.seek(this.time + seconds), zoom = factor => () => { this.camera.zoomBy(factor); this.redraw(); };
    const arrow = (dx, dy, seconds) => ({ shiftKey, target }) => seconds && (shiftKey || target.tagName === "INPUT") ? jump(seconds) : this.orbit(dx, dy);
    const play = () => this.toggle(), near = zoom(.9), far = zoom(1 / .9);
    return {
      " ": play, k: play, m: () => this.mute(), l: () => this.repeat(), c: () => this.track(), f: () => this.fill(), r: () => this.look(), 0: () => this.look(),
      1: () => this.look("front"), 2: () => this.look("side"), 3: () => this.look("top"), "+": near, "=": near, "-": far, _: far,
      t: () => this.press(".trails"), g: () => this.press(".ground"), b: () => this.screen.gl && this.press(".bones"),
      p: () => this.savePicture(), v: () => this.saveClip(), "?": () => this.help(),
      Escape: () => this.find(".tools.open") ? this.expand(false) : (this.region = null), "[": () => this.markFrom(), "]": () => this.markTo(),
      ArrowLeft: arrow(.15, 0, -1), ArrowRight: arrow(-.15, 0, 1), ArrowUp: arrow(0, .12), ArrowDown: arrow(0, -.12), PageUp: () => jump(5), PageDown: () => jump(-5),
      ",": () => this.step(-1), ".": () => this.step(1), Home: () => this.seek(0), End: () => this.seek(this.length),
    };
  }

  look(name) { // From the front, the side, the top, or as at first
    name ? this.camera.look(name) : this.camera.reset();
    this.redraw();
  }

  orbit(dx, dy) {
    this.camera.orbit(dx, dy);
    this.redraw();
  }

  expand(on = !this.find(".tools.open")) { // Show the tools, where they have no room of their own
    this.find(".tools").classList.toggle("open", on);
    this.find(".more").setAttribute("aria-expanded", on);
    if (!on && this.find(".tools").contains(document.activeElement)) this.find(".more").focus();
  }

  help() {
    this.expand(false);
    this.find("dialog").showModal();
  }

  markFrom() { this.mark(this.time, this.region && this.region[1] > this.time ? this.region[1] : this.length); }
  markTo() { this.mark(this.region && this.region[0] < this.time ? this.region[0] : 0, this.time); }

  fileName(ending) { // Of what is saved
    const title = this.find(".title").textContent.replace(/[^\p{L}\p{N}._ -]+/gu, "_").slice(0, 80);
    return `${title} ${this.time.toFixed(2)}s.${ending}`;
  }

  savePicture() { // Two pixels for one of the page, without controls
    const name = this.fileName("png");
    this.resize(Math.min(2, 4096 / Math.max(this.canvas.clientWidth, this.canvas.clientHeight)), 0);
    this.draw(this.time);
    this.canvas.toBlob(blob => download(blob, name));
    this.find(".note").textContent = `Saved: ${name}`;
    this.fit();
  }

  async saveClip() { // From here to the end, or the part marked; a second call ends it
    if (!clipType() || this.clip) return this.clip?.stop();
    const [from, to] = this.region || [this.time > this.length - .1 ? 0 : this.time, this.length];
    this.pause();
    this.seek(from);
    const name = this.fileName(clipType().includes("webm") ? "webm" : "mp4");
    this.resize(bySoftware() ? Math.max(this.sharpness, .5) : 1, 0);
    this.clip = new Clip(this.canvas, this.audio, to);
    this.press(".clip", true);
    this.find(".note").textContent = `Recording${this.clip.sounding ? " with sound" : ""} until ${clockText(to)}; press v or the button again to stop.`;
    this.clip.start(from);
    await this.play();
    this.clip.rolling = true;
    const blob = await this.clip.saved;
    this.clip = null;
    this.press(".clip", false);
    this.pause();
    this.find(".note").textContent = blob.size ? `Saved: ${name}` : "Nothing was recorded, since this browser gave no picture in time. Try a smaller window.";
    if (blob.size) download(blob, name);
    this.fit();
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

  resize(ratio, inset) { // Canvas pixels for each CSS pixel; the share of the picture that the controls cover
    const { canvas } = this, even = x => Math.max(2, 2 * Math.round(x * ratio / 2)); // As films want it
    const width = even(canvas.clientWidth), height = even(canvas.clientHeight), same = canvas.width === width && canvas.height === height;
    if (same && this.inset === inset) return;
    if (!same) Object.assign(canvas, { width, height });
    this.inset = inset;
    this.redraw();
  }

  fit() { // One canvas pixel per screen pixel, up to two per CSS pixel
    const { canvas } = this, covered = canvas.getBoundingClientRect().bottom - this.find(".controls").getBoundingClientRect().top;
    if (!this.clip) this.resize((this.playing ? this.sharpness : 1) * Math.min(devicePixelRatio || 1, 2), clamp(covered / Math.max(1, canvas.clientHeight), 0, .5));
    this.element.style.setProperty("--bar", `${covered}px`); // The tools open above it
    const stacked = this.stack && this.dances.length > 1 && canvas.clientHeight > 1.2 * canvas.clientWidth;
    if (stacked !== this.stacked) this.redraw();
    this.stacked = stacked;
    this.find(".names").classList.toggle("stacked", this.stacked);
    this.find(".names").style.bottom = `${this.stacked ? covered : 0}px`;
    this.grain = Math.max(1 / 30, Math.min(.1, this.length / Math.max(1, this.find("input").clientWidth))); // s: a pixel of the slider, or a digit of the clock
    this.find(".beats path").setAttribute("d", beatTicks(this.beats, this.length, this.find(".beats").clientWidth));
    this.wake();
  }

  show(visible) { // Out of sight nothing need be drawn
    if (visible && !this.visible) this.stale = true;
    this.visible = visible;
    this.wake();
  }

  // A machine that cannot keep up gets a coarser picture while it plays, rather than a jerky one; never finer again, lest it swing.
  easeOff(milliseconds) {
    this.pace += .08 * (Math.min(milliseconds, 60) - this.pace); // One hiccup is no lack of strength
    if (this.clip || this.pace < (bySoftware() ? 21 : 32) || this.sharpness <= .5) return;
    this.sharpness = Math.max(.5, .8 * this.sharpness);
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

  panes() { // For each dancer [left, bottom, width, height] in pixels; what the controls cover is the lowest one's
    const { canvas: { width, height }, dances: { length: count }, inset } = this, covered = Math.round(inset * height);
    const cut = (k, size) => Math.round(k * size / count);
    if (!this.stacked) return Array.from({ length: count }, (_, k) => [cut(k, width), 0, cut(k + 1, width) - cut(k, width), height]);
    return Array.from({ length: count }, (_, k) => {
      const bottom = k === count - 1 ? 0 : covered + cut(count - 1 - k, height - covered);
      return [0, bottom, width, covered + cut(count - k, height - covered) - bottom];
    });
  }

  showView() { // Which of the views it is
    if (this.shownView === this.camera.viewed) return;
    this.shownView = this.camera.viewed;
    for (const name in VIEWS) this.find(`.${name}`).setAttribute("aria-pressed", name === this.shownView);
  }

  draw(time) { // At rest exactly one frame, in motion wherever between two frames the song is
    const { canvas, dances, ground, trails, bones } = this, pulse = this.playing && !this.calm.matches ? Math.exp(-5 * (time - lastBeat(this.beats, time))) : 0;
    const panes = this.panes();
    this.showView();
    dances.forEach((dance, i) => {
      const place = clamp(this.playing ? time * dance.fps : Math.round(time * dance.fps), 0, dance.frames - 1), pose = dance.at(place);
      const [, bottom, width, height] = panes[i], view = this.camera.view(pose.path, dance.ground, width / height, bottom ? 0 : this.inset * canvas.height / height, i);
      const shown = { ground, bones, trails: trails ? dance.trails(place, pose) : [], hurry: (this.playing || this.gliding) && dances.length === 1 && bySoftware() };
      this.screen.draw(pose, view, dance.ground, this.palette, pulse, panes[i], shown);
    });
    this.drawn++;
  }

  tick(now) {
    this.awake = this.element.isConnected && !this.gone;
    if (!this.awake) return this.stay || this.pause(); // Taken off the page: be quiet
    const time = this.time, gliding = this.camera.glide(Math.min((now - this.last) / 1000, .1), this.calm.matches);
    if (this.playing && this.wasPlaying) this.easeOff(now - this.last);
    if (this.playing !== this.wasPlaying) { this.stale = true; this.fit(); }
    if (this.gliding && !gliding) this.stale = true; // The last picture of a glide is drawn with all care
    this.gliding = gliding && !this.calm.matches;
    this.wasPlaying = this.playing;
    this.last = now;
    if (this.visible && (this.playing || gliding || this.stale)) {
      this.stale = false;
      this.showTime(time);
      this.draw(time);
    }
    if (this.clip?.over(time, this.playing)) this.clip.stop();
    this.ontick?.();
    this.awake = this.playing || gliding || this.clip || this.visible && this.stale; // Else nothing moves until somebody says so
    if (this.awake) requestAnimationFrame(later => this.tick(later));
  }

  wake() {
    if (this.awake || !this.ready) return;
    this.awake = true;
    requestAnimationFrame(now => {
      this.last = now - 1000 / 60;
      this.tick(now);
    });
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
