// The keys of a page: a link that carries one in data-key is followed by it; j and k otherwise walk the rows of a list.
"use strict";
(() => {
  const help = document.getElementById("keys");
  const ask = document.getElementById("ask");
  const typing = target => help.open || target.closest("input, select, textarea");

  const walk = step => {
    const rows = [...document.querySelectorAll("a.row")];
    const place = rows.indexOf(document.activeElement);
    const next = rows[place < 0 ? (step > 0 ? 0 : rows.length - 1) : place + step];
    if (next) next.focus();
  };

  const pressed = event => {
    if (event.ctrlKey || event.metaKey || event.altKey || typing(event.target)) return;
    const link = document.querySelector(`[data-key="${CSS.escape(event.key)}"]`);
    const search = document.querySelector("input[type=search]");
    if (event.key === "?") help.showModal();
    else if (link) link.click();
    else if (event.key === "j" || event.key === "k") walk(event.key === "j" ? 1 : -1);
    else if (event.key === "/" && search) search.focus();
    else return;
    event.preventDefault();
  };

  document.addEventListener("keydown", pressed);
  ask.hidden = false;
  ask.addEventListener("click", () => help.showModal());
})();
