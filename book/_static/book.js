// Code gets its colours when it comes near the view, folds are filled when they are opened, figures are enlarged, and pictures come when a page is printed.
// Without scripts code is plain, and the rest is there from the start.
(() => {
  "use strict";
  const wanted = new Map(); // of each file of coloured code, the blocks that wait for it

  function colour(block) {
    const { kept, place } = block.dataset;
    if (window.coloured?.[kept]) block.innerHTML = window.coloured[kept][place];
    else if (wanted.has(kept)) wanted.get(kept).push(block);
    else {
      wanted.set(kept, [block]);
      const script = document.createElement("script");
      script.src = kept;
      script.addEventListener("load", () => wanted.get(kept).forEach(colour));
      document.head.append(script);
    }
  }

  const near = new IntersectionObserver(
    (changes) => {
      for (const { isIntersecting, target } of changes) {
        if (!isIntersecting) continue;
        near.unobserve(target);
        colour(target);
      }
    },
    { rootMargin: "800px" },
  );
  for (const block of document.querySelectorAll("pre[data-kept]")) near.observe(block);

  const fill = ({ target }) => {
    const kept = target.querySelector(":scope > noscript");
    if (kept) kept.outerHTML = kept.textContent;
  };
  document.addEventListener("toggle", fill, true);

  const large = document.createElement("dialog");
  large.className = "enlarged";
  large.ariaLabel = "Figure, enlarged";
  large.addEventListener("click", () => large.close());
  large.addEventListener("keydown", ({ key }) => key === "Escape" && large.close()); // which the theme keeps for its search
  document.body.append(large);
  for (const picture of document.querySelectorAll(".cell_output figure:not(.movable) > img")) {
    const button = document.createElement("button");
    button.className = "enlarge";
    button.title = "Enlarge";
    picture.replaceWith(button);
    button.append(picture);
    button.addEventListener("click", () => {
      const copy = picture.cloneNode();
      copy.loading = "eager";
      large.replaceChildren(copy);
      large.showModal();
    });
  }

  addEventListener("beforeprint", () => {
    for (const picture of document.querySelectorAll("img[loading]")) picture.loading = "eager";
  });
})();
