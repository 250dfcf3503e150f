"use strict";
(() => {
  const read = (id) => JSON.parse(document.getElementById(id).textContent);
  const { pictures, charts, gallery, layers } = read("data");
  const sources = read("sources");
  const main = document.querySelector("main");
  const svgSpace = "http://www.w3.org/2000/svg";

  // --- elements

  function make(name, attributes = {}, ...children) {
    const element = document.createElement(name);
    for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value);
    element.append(...children);
    return element;
  }

  function draw(name, attributes) {
    const element = document.createElementNS(svgSpace, name);
    for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value);
    return element;
  }

  // --- pictures: a thumbnail, and over it the shapes of each layer

  const areaOf = (shape) => shape.box ? (shape.box[2] - shape.box[0]) * (shape.box[3] - shape.box[1]) : Infinity;

  function shapeOf(shape, layer, unit) {
    const group = draw("g", { class: shape.kind ? `kind-${shape.kind}` : "" });
    if (shape.box) {
      const [x0, y0, x1, y1] = shape.box;
      for (const part of ["halo", "line"])
        group.append(draw("rect", { class: part, x: x0, y: y0, width: Math.max(x1 - x0, 0), height: Math.max(y1 - y0, 0) }));
      // Not by its colour alone: red and yellow are one colour to some.
      if (shape.kind === "unmatched")
        for (const part of ["halo", "line"]) group.append(draw("line", { class: part, x1: x0, y1: y1, x2: x1, y2: y0 }));
      // A box that is hardly to be seen has a ring around it.
      if (shape.kind === "marked" && Math.min(x1 - x0, y1 - y0) < 3 * unit)
        for (const part of ["halo", "line"])
          group.append(draw("circle", {
            class: part, cx: (x0 + x1) / 2, cy: (y0 + y1) / 2, r: Math.max(x1 - x0, y1 - y0) / 2 + 6 * unit,
          }));
    } else if (shape.path) {
      for (const part of ["halo", "line"]) group.append(draw("path", { class: part, d: shape.path, "fill-rule": "evenodd" }));
    } else if (shape.dot) {
      group.append(draw("circle", { class: "spot", cx: shape.dot[0], cy: shape.dot[1], r: layer === "keypoints" ? unit : 0.6 * unit }));
    } else if (shape.tie) {
      const [x1, y1, x2, y2] = shape.tie;
      for (const part of ["halo", "line"]) group.append(draw("line", { class: part, x1, y1, x2, y2 }));
    }
    return group;
  }

  function frameOf(picture) {
    const [width, height] = picture.size;
    const [imageWidth, imageHeight] = picture.image;
    const frame = make("span", { class: "frame", style: `aspect-ratio:${width}/${height}` });
    frame.append(make("img", {
      src: sources[picture.source], alt: picture.title,
      style: `width:${(100 * imageWidth) / width}%;height:${(100 * imageHeight) / height}%`,
    }));
    const svg = draw("svg", { viewBox: `0 0 ${width} ${height}`, "aria-hidden": "true" });
    const unit = Math.max(width, height) / 150;
    const shapes = [];
    for (const name of layers) {
      const own = picture.layers[name];
      if (!own) continue;
      const group = draw("g", { class: `layer-${name}` });
      for (const shape of [...own].sort((a, b) => areaOf(b) - areaOf(a))) {
        const element = shapeOf(shape, name, unit);
        group.append(element);
        if (shape.text) shapes.push({ shape, element, layer: name, unit });
        if (shape.score !== undefined) element.dataset.score = shape.score;
      }
      svg.append(group);
    }
    frame.append(svg);
    frame.addEventListener("pointermove", (event) => hover(event, frame, picture, shapes));
    frame.addEventListener("pointerleave", () => unhover(shapes));
    hideWeak(frame);
    return { frame, shapes };
  }

  // --- values on hover: of all visible shapes under the pointer, the smallest first

  const tip = document.getElementById("tip");
  const isOn = (layer) => !main.classList.contains(`off-${layer}`);

  function isUnder(shape, x, y, reach) {
    if (shape.dot) return Math.hypot(shape.dot[0] - x, shape.dot[1] - y) <= 1.5 * reach;
    if (shape.box) {
      const [x0, y0, x1, y1] = shape.box;
      return x >= x0 - reach && x <= x1 + reach && y >= y0 - reach && y <= y1 + reach;
    }
    return false;
  }

  function hover(event, frame, picture, shapes) {
    const place = frame.getBoundingClientRect();
    const x = ((event.clientX - place.left) / place.width) * picture.size[0];
    const y = ((event.clientY - place.top) / place.height) * picture.size[1];
    const under = shapes.filter(({ shape, element, layer, unit }) =>
      isOn(layer) && !element.classList.contains("weak") &&
      (shape.path ? element.lastChild.isPointInFill(new DOMPoint(x, y)) : isUnder(shape, x, y, unit)));
    under.sort((a, b) => (b.shape.dot ? 1 : 0) - (a.shape.dot ? 1 : 0) || areaOf(a.shape) - areaOf(b.shape));
    for (const { element } of shapes) element.classList.remove("hot");
    if (!under.length) { tip.hidden = true; return; }
    under[0].element.classList.add("hot");
    const lines = under.slice(0, 5).map(({ shape }) => make("div", {}, shape.text));
    if (under.length > 5) lines.push(make("div", {}, `and ${under.length - 5} more here`));
    tip.replaceChildren(...lines);
    tip.hidden = false;
    (frame.closest("dialog") || document.body).append(tip);
    tip.style.left = `${Math.max(4, Math.min(event.clientX + 14, innerWidth - tip.offsetWidth - 8))}px`;
    const below = event.clientY + 18;
    tip.style.top = `${below + tip.offsetHeight > innerHeight ? event.clientY - tip.offsetHeight - 10 : below}px`;
  }

  function unhover(shapes) {
    tip.hidden = true;
    for (const { element } of shapes) element.classList.remove("hot");
  }

  // --- an enlarged picture with a list of its values

  const dialog = document.querySelector("dialog");
  let shown = { group: [], place: 0 };

  function enlarge(group, place) {
    shown = { group, place };
    const picture = pictures[group[place]];
    const { frame, shapes } = frameOf(picture);
    frame.style.width = `min(100%, ${(68 * picture.size[0]) / picture.size[1]}vh)`;
    dialog.querySelector(".frame").replaceWith(frame);
    dialog.querySelector("h3").textContent = picture.title;
    dialog.querySelector(".notes").replaceChildren(...picture.notes.map((note) => make("p", { class: "faint" }, note)));
    dialog.querySelector("ul").replaceChildren(
      ...listed(shapes).map(({ shape, element }) => {
        const item = make("li", { tabindex: 0 }, shape.text);
        for (const event of ["pointerenter", "focus"]) item.addEventListener(event, () => element.classList.add("hot"));
        for (const event of ["pointerleave", "blur"]) item.addEventListener(event, () => element.classList.remove("hot"));
        return item;
      }));
    if (!dialog.open) dialog.showModal();
  }

  function listed(shapes) {
    const order = ["truth", "detections", "ignored", "masks", "keypoints", "positives"];
    return order.flatMap((name) => shapes.filter(({ layer }) => layer === name));
  }

  function step(by) {
    const place = shown.place + by;
    if (place >= 0 && place < shown.group.length) enlarge(shown.group, place);
  }

  dialog.querySelector(".before").addEventListener("click", () => step(-1));
  dialog.querySelector(".after").addEventListener("click", () => step(1));
  dialog.querySelector(".close").addEventListener("click", () => dialog.close());
  dialog.addEventListener("close", () => { tip.hidden = true; });
  dialog.addEventListener("keydown", (event) => {
    if (event.key === "ArrowLeft") step(-1);
    if (event.key === "ArrowRight") step(1);
  });

  // --- figures are filled when they come into sight

  const filler = new IntersectionObserver((entries) => {
    for (const { isIntersecting, target } of entries) {
      if (!isIntersecting) continue;
      filler.unobserve(target);
      const { group, place } = target.described;
      target.querySelector(".frame").replaceWith(frameOf(pictures[group[place]]).frame);
    }
  }, { rootMargin: "600px" });

  function figureOf(group, place) {
    const picture = pictures[group[place]];
    const button = make("button", { type: "button", "aria-label": `enlarge ${picture.title}` },
      make("span", { class: "frame", style: `aspect-ratio:${picture.size[0]}/${picture.size[1]}` }));
    button.addEventListener("click", () => enlarge(group, place));
    const title = make("b", picture.unmatched ? { class: "alert" } : {}, picture.title);
    const caption = make("figcaption", {}, title);
    for (const note of picture.notes.slice(0, 1)) caption.append(make("small", {}, note));
    const figure = make("figure", { class: "picture", "data-picture": group[place] }, button, caption);
    figure.described = { group, place };
    filler.observe(figure);
    return figure;
  }

  for (const holder of document.querySelectorAll("[data-pictures]")) {
    const group = JSON.parse(holder.dataset.pictures);
    holder.append(...group.map((_, place) => figureOf(group, place)));
  }

  // --- the gallery: which pictures, in which order

  const grid = document.getElementById("fed");
  const chosen = (name) => document.getElementById(name)?.value ?? "";

  function fillGallery() {
    const data = chosen("choose-data"), label = chosen("choose-class"), order = chosen("choose-order");
    const group = gallery.filter((number) => {
      const picture = pictures[number];
      return (!data || picture.data === data) && (!label || picture.classes.includes(Number(label)));
    });
    if (order) group.sort((a, b) => pictures[b][order] - pictures[a][order]);
    grid.replaceChildren(...group.map((_, place) => figureOf(group, place)));
    document.getElementById("count").textContent = `${group.length} of ${gallery.length} pictures`;
  }

  if (grid) {
    for (const name of ["choose-data", "choose-class", "choose-order"])
      document.getElementById(name)?.addEventListener("change", fillGallery);
    fillGallery();
  }

  // --- layers and scores

  for (const box of document.querySelectorAll("[data-layer]")) {
    const show = () => {
      for (const part of [main, dialog]) part.classList.toggle(`off-${box.dataset.layer}`, !box.checked);
    };
    box.addEventListener("change", show);
    show();  // a browser may remember what was checked when a page is loaded again
  }

  const score = document.getElementById("score");
  function hideWeak(root) {
    if (!score) return;
    for (const element of root.querySelectorAll("[data-score]"))
      element.classList.toggle("weak", Number(element.dataset.score) < Number(score.value));
  }
  score?.addEventListener("input", () => {
    document.getElementById("score-value").textContent = Number(score.value).toFixed(2);
    hideWeak(document);
  });

  // --- charts, in the colours of the theme

  const okabeIto = {
    light: ["#0072b2", "#e69f00", "#009e73", "#d55e00", "#cc79a7", "#56b4e9", "#1b1d20", "#8c8c8c"],
    dark: ["#56b4e9", "#e69f00", "#009e73", "#d55e00", "#cc79a7", "#f0e442", "#e8eaed", "#8c8c8c"],
  };

  function isDark() {
    const theme = document.documentElement.dataset.theme;
    return theme ? theme === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
  }

  const drawn = [];
  async function drawCharts() {
    const style = getComputedStyle(document.body);
    const dark = isDark();
    const ink = style.color;
    const line = dark ? "#3b4047" : "#d3d6da";
    const config = {
      background: "transparent",
      font: style.fontFamily,
      view: { stroke: "transparent" },
      axis: { labelColor: ink, titleColor: ink, gridColor: line, domainColor: line, tickColor: line },
      legend: { labelColor: ink, titleColor: ink },
      rule: { color: ink },
      text: { color: ink },
      range: { category: okabeIto[dark ? "dark" : "light"] },
    };
    for (const view of drawn.splice(0)) view.finalize();
    const narrow = innerWidth < 600;
    for (const holder of document.querySelectorAll("[data-chart]")) {
      const { title, summary, spec } = charts[holder.dataset.chart];
      const own = { ...spec, description: `${title}: ${summary}` };
      if (narrow) config.axis.labelLimit = 110;
      drawn.push(await vegaEmbed(holder, own, {
        config, actions: false, renderer: "svg", ast: true, tooltip: { theme: dark ? "dark" : "light" },
      }));
    }
    document.documentElement.dataset.drawn = drawn.length;
  }

  const button = document.getElementById("theme");
  const themes = ["", "light", "dark"];
  function setTheme(theme) {
    if (theme) document.documentElement.dataset.theme = theme; else delete document.documentElement.dataset.theme;
    button.textContent = theme ? `${theme} colours` : "system's colours";
  }
  let remembered = "";
  try { remembered = localStorage.getItem("detfeed-theme") || ""; } catch { /* a page from a file may have no storage */ }
  setTheme(themes.includes(remembered) ? remembered : "");
  button.addEventListener("click", () => {
    const next = themes[(themes.indexOf(document.documentElement.dataset.theme || "") + 1) % themes.length];
    setTheme(next);
    try { localStorage.setItem("detfeed-theme", next); } catch { /* then it is not remembered */ }
    drawCharts();
  });
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", drawCharts);
  drawCharts();
})();
