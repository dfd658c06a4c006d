// Every word must occur; a page whose title has it comes first, then names of the reference, then prose.
const field = document.querySelector("input[type=search]"), list = document.querySelector(".found"), root = document.body.dataset.root;

function find(question) {
  const words = question.toLowerCase().split(/\s+/).filter(Boolean);
  if (!words.length) return [];
  const score = entry => words.reduce((sum, word) => {
    const title = entry.title.toLowerCase();
    const points = title === word ? 60 : title.startsWith(word) ? 30 : title.includes(word) ? 20 : entry.text.toLowerCase().includes(word) ? 3 : -1e6;
    return sum + points;
  }, entry.weight);
  return INDEX.map(entry => [score(entry), entry]).filter(([points]) => points > 0).sort((a, b) => b[0] - a[0]).slice(0, 12).map(([, entry]) => entry);
}

function show() {
  const found = find(field.value);
  list.hidden = !field.value.trim();
  list.replaceChildren(...found.map(entry => {
    const item = document.createElement("li"), link = item.appendChild(document.createElement("a")), where = item.appendChild(document.createElement("small"));
    link.href = root + entry.url;
    link.textContent = entry.title;
    where.textContent = entry.where;
    return item;
  }));
  if (!list.hidden && !found.length) list.textContent = "Nothing found.";
}

field.addEventListener("input", show);
field.addEventListener("keydown", event => { if (event.key === "Enter") list.querySelector("a")?.click(); });
document.addEventListener("keydown", event => { if (event.key === "/" && document.activeElement !== field) { event.preventDefault(); field.focus(); } });
