// What a checker of accessibility looks at first, for the page as it is now. Gives a list of what is wrong.
(() => {
  const wrong = [];
  const seen = (element) => element.checkVisibility({ visibilityProperty: true }) && !element.closest("[aria-hidden=true]");
  const all = (selector) => [...document.querySelectorAll(selector)].filter(seen);
  const told = (element) => element.outerHTML.slice(0, 90);
  const nameOf = (element) => {
    const by = element.getAttribute("aria-labelledby")?.split(" ").map((id) => document.getElementById(id)?.textContent).join(" ");
    const labels = [...(element.labels ?? [])].map((label) => label.textContent).join(" ");
    return (by ?? element.getAttribute("aria-label") ?? (labels || element.textContent)).trim();
  };

  for (const element of all("a, button, input, select, summary, fieldset, dialog, section, nav, [tabindex], [role=region]")) {
    if (!nameOf(element)) wrong.push(`no name: ${told(element)}`);
  }
  for (const attribute of ["aria-labelledby", "aria-describedby", "for"]) {
    for (const element of document.querySelectorAll(`[${attribute}]`)) {
      for (const id of element.getAttribute(attribute).split(" ")) {
        if (!document.getElementById(id)) wrong.push(`${attribute} names nothing: ${told(element)}`);
      }
    }
  }
  const ids = [...document.querySelectorAll("[id]")].map((element) => element.id);
  for (const id of new Set(ids.filter((each, index) => ids.indexOf(each) !== index))) wrong.push(`twice: #${id}`);
  let level = 0;
  for (const heading of all("h1, h2, h3, h4")) {
    const own = Number(heading.tagName[1]);
    if (own > level + 1) wrong.push(`a level is left out before ${told(heading)}`);
    level = own;
  }
  if (all("h1").length !== 1) wrong.push("not one h1");
  for (const landmark of ["header", "main", "footer"]) if (all(`body > ${landmark}`).length !== 1) wrong.push(`not one ${landmark}`);
  for (const image of all("img")) if (!image.hasAttribute("alt")) wrong.push(`no alt: ${told(image)}`);
  for (const table of all("table")) {
    if (!table.querySelector("thead th[scope=col]")) wrong.push(`a table without titles: ${told(table)}`);
  }
  if (!document.documentElement.lang || !document.title) wrong.push("no language, or no title");
  if (document.documentElement.scrollWidth > innerWidth) wrong.push(`wider than the window: ${document.documentElement.scrollWidth}`);

  // Live regions are read aloud whenever they change: figures, which always do, must be none.
  for (const element of document.querySelectorAll("output, [aria-live]")) wrong.push(`read aloud again and again: ${told(element)}`);
  for (const element of all("[role=status]")) if (/[0-9]\/s/.test(element.textContent)) wrong.push(`figures read aloud: ${told(element)}`);

  // Contrast, WCAG 2.2 AA: 4.5 of text, 3 of large text.
  const canvas = new OffscreenCanvas(1, 1).getContext("2d", { willReadFrequently: true });
  const rgba = (colour) => {
    canvas.clearRect(0, 0, 1, 1);
    canvas.fillStyle = colour;
    canvas.fillRect(0, 0, 1, 1);
    const [r, g, b, a] = canvas.getImageData(0, 0, 1, 1).data;
    return [r, g, b, a / 255];
  };
  const over = (top, below) => [0, 1, 2].map((i) => top[i] * top[3] + below[i] * (1 - top[3])).concat(1);
  const ground = (element) => {
    const layers = [];
    for (let each = element; each; each = each.parentElement) layers.push(rgba(getComputedStyle(each).backgroundColor));
    return layers.reverse().reduce((below, top) => over(top, below), [255, 255, 255, 1]);
  };
  const light = ([r, g, b]) => {
    const [x, y, z] = [r, g, b].map((c) => (c / 255 <= 0.04045 ? c / 255 / 12.92 : ((c / 255 + 0.055) / 1.055) ** 2.4));
    return 0.2126 * x + 0.7152 * y + 0.0722 * z;
  };
  for (const element of all("body *")) {
    const text = [...element.childNodes].some((node) => node.nodeType === Node.TEXT_NODE && node.textContent.trim());
    if (!text || element.closest("noscript, .hidden, .skip, option")) continue;
    const style = getComputedStyle(element);
    const below = ground(element);
    const [a, b] = [light(over(rgba(style.color), below)), light(below)].sort((x, y) => y - x);
    const ratio = (a + 0.05) / (b + 0.05);
    if (ratio < (Number.parseFloat(style.fontSize) >= 24 ? 3 : 4.5)) wrong.push(`contrast ${ratio.toFixed(2)}: ${told(element)}`);
  }
  for (const element of all("input:not([type=radio]), select")) {
    const below = ground(element.parentElement);
    const [a, b] = [light(over(rgba(getComputedStyle(element).borderColor), below)), light(below)].sort((x, y) => y - x);
    if ((a + 0.05) / (b + 0.05) < 3) wrong.push(`contrast of the edge ${((a + 0.05) / (b + 0.05)).toFixed(2)}: ${told(element)}`);
  }
  return wrong;
})()
