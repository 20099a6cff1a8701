// The scoreboard's filters and its order, and a few rows at a time. Without scripts the whole table stands on the page, in the order of the papers.
(() => {
  "use strict";
  const board = document.querySelector(".scoreboard");
  const form = board.querySelector("form");
  const field = form.elements;
  const status = board.querySelector(".score-count");
  const more = board.querySelector(".score-more");
  const whole = board.querySelector("noscript"); // text, where scripts run
  const read = document.createElement("template");
  read.innerHTML = whole.textContent;
  const table = read.content.querySelector("table.score");
  const body = table.tBodies[0];
  const rows = [...body.rows];
  const FEW = 50;
  const place = new Map(rows.map((row, index) => [row, index]));
  const words = new Map(rows.map((row) => [row, row.textContent.toLowerCase()]));
  // The options stand in the order of the verdicts, so they rank them.
  const ranks = (name) => new Map([...field[name].options].map((option, index) => [option.value, index || 99]));
  const rank = { verdict: ranks("verdict"), survives: ranks("survives") };
  let descending = false;
  let limit = FEW;

  const cell = (row, profile) => row.querySelector(`td[data-profile="${profile || row.dataset.best}"]`);
  const is = (wanted, found) => wanted === "" || wanted === found;

  function matches(row) {
    const shown = cell(row, field.profile.value).dataset;
    return (
      ["paper", "chapter", "kind"].every((name) => is(field[name].value, row.dataset[name])) &&
      ["verdict", "survives"].every((name) => is(field[name].value, shown[name])) &&
      (!field.older.checked || row.dataset.older === "yes") &&
      field.text.value.toLowerCase().split(/\s+/).every((word) => words.get(row).includes(word))
    );
  }

  function compare(one, other) {
    const order = field.sort.value;
    const by = (name, at) => rank[name].get(cell(one, at).dataset[name]) - rank[name].get(cell(other, at).dataset[name]);
    let found = 0;
    if (order === "claim") found = one.id.localeCompare(other.id, "en", { numeric: true });
    else if (order in rank) found = by(order, field.profile.value);
    else if (order) found = by("verdict", order);
    return (found || place.get(one) - place.get(other)) * (descending ? -1 : 1);
  }

  function say(visible) {
    const counted = new Map([...rank.verdict.keys()].map((word) => [word, 0]));
    for (const row of visible) {
      const word = cell(row, field.profile.value).dataset.verdict;
      counted.set(word, counted.get(word) + 1);
    }
    const parts = [...counted].filter(([, count]) => count).map(([word, count]) => `${count} ${word}`);
    const among = parts.length ? `: ${parts.join(", ")}` : "";
    status.textContent = `${visible.length} of ${rows.length} claims${among}`;
  }

  function show() {
    const visible = rows.filter(matches).sort(compare);
    body.replaceChildren(...visible.slice(0, limit));
    more.hidden = visible.length <= limit;
    if (window.MathJax?.startup?.promise) MathJax.startup.promise = MathJax.startup.promise.then(() => MathJax.typesetPromise([body]));
    table.dataset.only = field.profile.value;
    for (const head of table.tHead.querySelectorAll("th[data-sort]")) {
      if (field.sort.value === head.dataset.sort) head.setAttribute("aria-sort", descending ? "descending" : "ascending");
      else head.removeAttribute("aria-sort");
    }
    say(visible);
  }

  for (const head of table.tHead.querySelectorAll("th[data-sort]")) {
    const button = document.createElement("button");
    button.type = "button";
    button.textContent = head.textContent;
    button.addEventListener("click", () => {
      descending = head.hasAttribute("aria-sort") && !descending;
      field.sort.value = head.dataset.sort;
      show();
    });
    head.replaceChildren(button);
  }
  form.addEventListener("submit", (event) => event.preventDefault());
  form.addEventListener("input", (event) => {
    if (event.target.name === "sort") descending = false;
    limit = FEW;
    show();
  });
  form.addEventListener("reset", () => {
    descending = false;
    limit = FEW;
    setTimeout(show); // after the fields have been reset
  });
  more.addEventListener("click", () => {
    limit += FEW;
    show();
  });
  // An address that ends in a claim's name leads to its row, which may stand below those that are shown.
  function lead() {
    const place = rows.findIndex((row) => row.id === decodeURIComponent(location.hash.slice(1)));
    if (place < 0) return;
    limit = Math.max(limit, place + 1);
    show();
    location.replace(location.hash);
  }
  whole.replaceWith(read.content);
  form.hidden = false;
  show();
  lead();
  addEventListener("hashchange", lead);
})();
