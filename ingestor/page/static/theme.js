// Sets the colours before anything is painted: those of the system, unless the reader chose others.
(() => {
  const dark = matchMedia("(prefers-color-scheme: dark)");
  const root = document.documentElement;
  let here = "system"; // where nothing may be kept
  const chosen = () => {
    try { return localStorage.getItem("ingestor-theme") ?? here; } catch { return here; }
  };
  const apply = () => {
    const theme = chosen();
    root.dataset.theme = theme === "system" ? (dark.matches ? "dark" : "light") : theme;
    document.dispatchEvent(new Event("theme"));
  };
  dark.addEventListener("change", apply);
  addEventListener("storage", apply);
  apply();
  document.addEventListener("DOMContentLoaded", () => {
    const choice = document.getElementById("theme");
    choice.value = chosen();
    choice.addEventListener("change", () => {
      here = choice.value;
      try { localStorage.setItem("ingestor-theme", here); } catch { /* for this page alone, then */ }
      apply();
    });
  });
})();
