// Figures that a reader moves; support/book/movable.py makes them. Without this file their still picture stays on the page.
(() => {
  "use strict";
  const GRID = 1000; // steps of a panel, across and down
  const [WIDTH, HEIGHT, LEFT, TOP] = [420, 240, 58, 26];
  const [WHOLE, TALL] = [LEFT + WIDTH + 14, TOP + HEIGHT + 46];
  const across = (step) => LEFT + (step * WIDTH) / GRID;
  const down = (step) => TOP + (step * HEIGHT) / GRID;
  let clips = 0;

  function add(parent, name, attributes = {}, text = "") {
    const html = parent.namespaceURI.endsWith("xhtml") && name !== "svg";
    const found = html ? document.createElement(name) : document.createElementNS("http://www.w3.org/2000/svg", name);
    for (const [key, value] of Object.entries(attributes)) found.setAttribute(key, value);
    found.textContent = text;
    return parent.appendChild(found);
  }

  function axes(parent, panel, alt) {
    const svg = add(parent, "svg", { viewBox: `0 0 ${WHOLE} ${TALL}`, role: "img", "aria-label": alt });
    const clip = `movable-${(clips += 1)}`;
    add(add(svg, "clipPath", { id: clip }), "rect", { x: LEFT, y: TOP, width: WIDTH, height: HEIGHT });
    const [end, foot] = [LEFT + WIDTH, TOP + HEIGHT];
    add(svg, "path", { class: "frame", d: `M${LEFT} ${TOP}V${foot}H${end}` });
    for (const [step, text] of panel.xticks) {
      add(svg, "path", { class: "frame", d: `M${across(step)} ${foot}v5` });
      add(svg, "text", { x: across(step), y: foot + 18, "text-anchor": "middle" }, text);
    }
    for (const [step, text] of panel.yticks) {
      add(svg, "path", { class: "frame", d: `M${LEFT} ${down(GRID - step)}h-5` });
      add(svg, "text", { x: LEFT - 9, y: down(GRID - step) + 4, "text-anchor": "end" }, text);
    }
    const middle = { x: LEFT + WIDTH / 2, "text-anchor": "middle" };
    add(svg, "text", { ...middle, y: TALL - 8 }, panel.xlabel);
    add(svg, "text", { ...middle, y: 16, class: "title" }, panel.title);
    const turned = `translate(14 ${TOP + HEIGHT / 2}) rotate(-90)`;
    add(svg, "text", { transform: turned, "text-anchor": "middle" }, panel.ylabel);
    return add(svg, "g", { "clip-path": `url(#${clip})` });
  }

  function pairs(points) {
    const found = [];
    for (let i = 0; i < points.length; i += 2) found.push([across(points[i]), down(points[i + 1])]);
    return found;
  }

  function draw(parent, mark) {
    const points = pairs(mark.points);
    const line = { points: points.join(" "), fill: "none", stroke: mark.color, "stroke-width": 2, "stroke-dasharray": mark.dash };
    if (mark.kind === "dots") for (const [cx, cy] of points) add(parent, "circle", { cx, cy, r: 4, fill: mark.color });
    else if (mark.kind === "area") add(parent, "polygon", { points: line.points, fill: mark.color, "fill-opacity": 0.3 });
    else add(parent, "polyline", line);
    if (mark.kind === "arrow") {
      const [[fromX, fromY], [x, y]] = points.slice(-2);
      const turn = (Math.atan2(y - fromY, x - fromX) * 180) / Math.PI;
      if (x !== fromX || y !== fromY) add(parent, "path", { d: "M0 0L-10 4.5V-4.5Z", fill: mark.color, transform: `translate(${x} ${y}) rotate(${turn})` });
    }
  }

  function legend(parent, marks) {
    const list = add(parent, "ul", { class: "movable-legend" });
    const named = new Map(marks.filter((mark) => mark.label).map((mark) => [mark.label, mark]));
    for (const [label, mark] of named) {
      const item = add(list, "li");
      const key = add(item, "svg", { viewBox: `${LEFT} ${TOP} 28 12`, "aria-hidden": "true" });
      const [x, y] = [(28 * GRID) / WIDTH, (6 * GRID) / HEIGHT];
      const points = { dots: [x / 2, y], area: [0, 0, x, 0, x, 2 * y, 0, 2 * y] }[mark.kind] || [0, y, x, y];
      draw(key, { ...mark, points });
      add(item, "span", {}, label);
    }
  }

  function make(figure, data) {
    const [still, says] = [figure.querySelector("img"), figure.querySelector("p")];
    const controls = add(figure, "div", { class: "movable-controls" });
    const panels = add(figure, "div", { class: "movable-panels" });
    const groups = data.panels.map((panel) => axes(panels, panel, `${panel.title || panel.ylabel}. ${data.alt}`));
    legend(figure, data.marks);
    const sliders = data.sliders.map((slider) => {
      const label = add(controls, "label");
      add(label, "span", {}, slider.label);
      const range = { type: "range", min: 0, max: slider.texts.length - 1, step: 1, value: slider.start };
      return { texts: slider.texts, input: add(label, "input", range), shown: add(label, "span", { "aria-hidden": "true" }) };
    });
    function show() {
      let at = 0;
      for (const { texts, input, shown } of sliders) {
        at = at * texts.length + Number(input.value);
        shown.textContent = texts[input.value];
        input.setAttribute("aria-valuetext", texts[input.value]);
      }
      const state = data.states[at];
      groups.forEach((group, place) => {
        group.replaceChildren();
        for (const mark of state.marks[place]) draw(group, data.marks[mark]);
      });
      says.textContent = state.says;
    }
    controls.addEventListener("input", show);
    still.remove();
    figure.append(says);
    show();
  }

  // A book that was built has the states in a file of their own, which is read when the figure comes near the view.
  function begin(figure) {
    const { textContent, dataset } = figure.querySelector("script");
    if (!dataset.kept) return make(figure, JSON.parse(textContent));
    const script = add(document.head, "script", { src: dataset.kept });
    script.addEventListener("load", () => make(figure, window.movables[dataset.kept]));
  }

  const near = new IntersectionObserver(
    (changes) => {
      for (const { isIntersecting, target } of changes) {
        if (!isIntersecting) continue;
        near.unobserve(target);
        begin(target);
      }
    },
    { rootMargin: "800px" },
  );
  for (const figure of document.querySelectorAll("figure.movable:not([data-moves])")) {
    figure.dataset.moves = "yes";
    near.observe(figure);
  }
})();
