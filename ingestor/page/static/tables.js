// Tables: what a chart shows, for those who would rather read it, or have it read to them.

/** A table with `titles`, and rows of texts; the first cell of each names its row. */
export function table(caption, titles, rows) {
  const made = document.createElement("table");
  made.createCaption().textContent = caption;
  made.caption.className = "hidden";
  const head = made.createTHead().insertRow();
  for (const title of titles) head.append(heading(title, "col"));
  const body = made.createTBody();
  for (const [name, ...cells] of rows) {
    const row = body.insertRow();
    row.append(heading(name, "row"));
    for (const cell of cells) row.insertCell().textContent = cell;
  }
  return made;
}

export function heading(text, scope) {
  const cell = document.createElement("th");
  cell.scope = scope;
  cell.textContent = text;
  return cell;
}

/** A name that keeps its direction to itself: many are written from right to left. */
export function isolated(name) {
  return Object.assign(document.createElement("bdi"), { textContent: name });
}

/** Fills a `<details>` while it is open, and when it is opened. */
export function whenOpen(details, make) {
  const fill = () => {
    if (details.open) details.querySelector(".scroll").replaceChildren(make());
  };
  details.addEventListener("toggle", fill);
  return fill;
}
