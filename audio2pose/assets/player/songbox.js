// A place for a song: dropped, chosen or recorded. What comes is cut into pieces, for servers refuse long messages.

const PIECE = 1 << 20;

const BOX = `
<label class="drop" tabindex="0">
  <input type="file" accept="audio/*,video/*">
  <svg viewBox="0 0 24 24" aria-hidden="true"><path d="M9 18V6l10-2v12M9 18a2.5 2.5 0 1 1-2.5-2.5H9M19 16a2.5 2.5 0 1 1-2.5-2.5H19"/></svg>
  <span>Drop a song here, or click to choose one</span>
</label>
<button type="button" class="record"><svg viewBox="0 0 24 24" aria-hidden="true"><circle cx="12" cy="12" r="6"/></svg><span>Record</span></button>
<p class="status" role="status"></p>`;

async function send(model, blob, name) {
  const data = await blob.arrayBuffer(), parts = Math.max(1, Math.ceil(data.byteLength / PIECE));
  for (let part = 0; part < parts; part++) model.send({ kind: "song", name, part, parts }, undefined, [data.slice(part * PIECE, (part + 1) * PIECE)]);
}

class Recorder {
  constructor(say, finish) { Object.assign(this, { say, finish, recorder: null }); }

  async toggle() {
    if (this.recorder) return this.recorder.stop();
    if (!navigator.mediaDevices || !window.MediaRecorder) return this.say("This browser records only pages from this machine or over https; drop a file instead.");
    try { this.begin(await navigator.mediaDevices.getUserMedia({ audio: { echoCancellation: false, noiseSuppression: false, autoGainControl: false } })); }
    catch (error) { this.say(`No microphone (${error.message}); drop a file instead.`); }
  }

  begin(stream) {
    const parts = [], started = performance.now(), recorder = this.recorder = new MediaRecorder(stream);
    const tick = setInterval(() => this.say(`Recording, ${((performance.now() - started) / 1000).toFixed(0)} s. Clap, sing, play; press again to stop.`), 250);
    recorder.ondataavailable = event => parts.push(event.data);
    recorder.onstop = () => {
      clearInterval(tick);
      for (const track of stream.getTracks()) track.stop();
      this.recorder = null;
      this.finish(new Blob(parts, { type: recorder.mimeType }));
    };
    recorder.start();
    setTimeout(() => recorder.state === "recording" && recorder.stop(), 600_000);
  }
}

function render({ model, el }) {
  const box = document.createElement("div"), find = name => box.querySelector(name);
  box.className = "a2p-box";
  box.innerHTML = BOX;
  el.append(box);
  const say = text => { find(".status").textContent = text; };
  const show = () => { say(model.get("status")); box.classList.toggle("busy", model.get("busy")); };
  const take = (blob, name) => { say("Sending ..."); send(model, blob, name); };
  const drop = find(".drop");
  for (const event of ["dragover", "dragenter"]) drop.addEventListener(event, e => { e.preventDefault(); e.stopPropagation(); drop.classList.add("over"); });
  for (const event of ["dragleave", "drop"]) drop.addEventListener(event, () => drop.classList.remove("over"));
  drop.addEventListener("drop", event => {
    event.preventDefault();
    event.stopPropagation();
    const [file] = event.dataTransfer.files;
    if (file) take(file, file.name);
  });
  find("input").addEventListener("change", event => { const [file] = event.target.files; if (file) take(file, file.name); event.target.value = ""; });
  const recorder = new Recorder(say, blob => take(blob, "recording.webm"));
  find(".record").addEventListener("click", async () => {
    await recorder.toggle();
    box.classList.toggle("recording", Boolean(recorder.recorder));
    find(".record span").textContent = recorder.recorder ? "Stop" : "Record";
    if (recorder.recorder) recorder.recorder.addEventListener("stop", () => { box.classList.remove("recording"); find(".record span").textContent = "Record"; });
  });
  model.on("change:status", show);
  model.on("change:busy", show);
  show();
  return () => { model.off("change:status", show); model.off("change:busy", show); recorder.recorder?.stop(); };
}

export default { render };
