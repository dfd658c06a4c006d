// The bars of a song as a ruler: some are selected, danced anew, and taken back; two versions side by side. One state shared with Python.

const EDITOR = `
<div class="ruler" role="group" aria-label="Bars"></div>
<div class="actions" role="group" aria-label="Edit">
  <button type="button" class="reroll" title="Dance the selected bars anew">Re-roll</button><button type="button" class="undo">Undo</button>
  <button type="button" class="compare" aria-pressed="false" title="The last two versions">Side by side</button>
  <label>Style <select><option value="">any</option></select></label><span class="status" role="status"></span>
</div>`;

class Ruler {
  constructor(element, model) {
    Object.assign(this, { element, model, anchor: null });
    element.className = "a2p-editor";
    element.innerHTML = EDITOR;
    for (const style of model.get("styles")) this.find("select").append(new Option(style, style));
    const ruler = this.find(".ruler");
    ruler.addEventListener("pointerdown", event => this.press(event));
    ruler.addEventListener("pointerover", event => { if (this.anchor && event.buttons && event.target.dataset.bar) this.select(this.anchor, Number(event.target.dataset.bar)); });
    ruler.addEventListener("keydown", event => this.key(event));
    for (const name of ["reroll", "undo"]) this.find(`.${name}`).addEventListener("click", () => model.send({ kind: name }));
    this.find(".compare").addEventListener("click", () => this.set("compared", !model.get("compared")));
    this.find("select").addEventListener("change", event => this.set("style", event.target.value));
    this.build();
    this.show();
  }

  find(name) { return this.element.querySelector(name); }
  set(name, value) { this.model.set(name, value); this.model.save_changes(); }

  build() { // A button for each bar, as wide as it is long
    const edges = this.model.get("edges"), bars = edges.slice(1).map((end, i) => {
      const bar = Object.assign(document.createElement("button"), { type: "button", className: "bar", textContent: i + 1 });
      bar.dataset.bar = i + 1;
      bar.style.flexGrow = end - edges[i];
      bar.setAttribute("aria-label", `Bar ${i + 1}`);
      return bar;
    });
    this.head = Object.assign(document.createElement("i"), { className: "head" });
    this.find(".ruler").replaceChildren(...bars, this.head);
    this.bars = bars;
  }

  press(event) { // A click selects a bar, a drag or shift selects those up to another
    const bar = Number(event.target.dataset?.bar);
    if (!bar) return;
    event.target.releasePointerCapture?.(event.pointerId); // As a finger would hold it
    if (!(event.shiftKey && this.anchor)) this.anchor = bar;
    this.select(this.anchor, bar);
  }

  key(event) {
    const bar = Number(event.target.dataset?.bar), next = bar + { ArrowLeft: -1, ArrowRight: 1 }[event.key];
    if (event.key === "Escape") { this.anchor = null; this.set("selected", []); }
    else if (event.key === " " || event.key === "Enter") { this.anchor = bar; this.select(bar, bar); }
    else if (this.bars[next - 1]) {
      this.bars[next - 1].focus();
      if (event.shiftKey) this.select(this.anchor ??= bar, next);
    } else return;
    event.preventDefault();
  }

  select(a, b) { this.set("selected", [Math.min(a, b), Math.max(a, b)]); this.show(); }

  show() {
    const { model } = this, [first = 0, last = -1] = model.get("selected"), busy = model.get("busy"), edited = model.get("edited");
    this.bars.forEach((bar, i) => {
      bar.setAttribute("aria-pressed", i + 1 >= first && i + 1 <= last);
      bar.classList.toggle("edited", edited.includes(i + 1));
    });
    this.find(".reroll").disabled = busy || !first;
    this.find(".undo").disabled = busy || model.get("versions") < 2;
    this.find(".compare").disabled = busy || model.get("versions") < 2;
    this.find(".compare").setAttribute("aria-pressed", model.get("compared"));
    this.find("select").value = model.get("style");
    this.find(".status").textContent = model.get("status");
    this.follow();
  }

  follow() { // Where the dancer is
    const time = this.model.get("time"), edges = this.model.get("edges"), i = Math.max(0, edges.findLastIndex(edge => edge <= time)), bar = this.bars[Math.min(i, this.bars.length - 1)];
    if (!bar) return;
    const share = Math.min(1, (time - edges[i]) / ((edges[i + 1] ?? edges[i] + 1) - edges[i]));
    this.head.style.left = `${bar.offsetLeft + share * bar.offsetWidth}px`;
  }
}

function render({ model, el }) {
  const host = document.createElement("div");
  el.append(host);
  const ruler = new Ruler(host, model), show = () => ruler.show(), build = () => { ruler.build(); ruler.show(); }, follow = () => ruler.follow();
  const listeners = [["change:time", follow], ["change:edges", build], ...["selected", "edited", "versions", "compared", "busy", "status", "style"].map(name => [`change:${name}`, show])];
  for (const [event, action] of listeners) model.on(event, action);
  const watch = new ResizeObserver(follow);
  watch.observe(host);
  return () => {
    watch.disconnect();
    for (const [event, action] of listeners) model.off(event, action);
  };
}

export default { render };
