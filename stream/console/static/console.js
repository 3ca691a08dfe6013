// Times in the reader's zone, questions before an action, the words of the slider. Pages work without it.
"use strict";
(() => {
  const forms = {
    full: new Intl.DateTimeFormat(undefined, {dateStyle: "medium", timeStyle: "medium"}),
    short: new Intl.DateTimeFormat(undefined, {month: "short", day: "numeric", hour: "2-digit", minute: "2-digit", second: "2-digit"}),
    old: new Intl.DateTimeFormat(undefined, {year: "numeric", month: "short", day: "numeric", hour: "2-digit", minute: "2-digit"}),
  };
  const year = new Date().getFullYear();
  const localize = (within) => {
    for (const element of within.querySelectorAll("time[datetime]")) {
      const at = new Date(element.dateTime);
      if (isNaN(at)) continue;
      const form = element.dataset.form === "short" && at.getFullYear() !== year ? "old" : element.dataset.form;
      const shown = (forms[form] || forms.full).format(at);
      if (element.textContent !== shown) element.textContent = shown;
      const title = `${forms.full.format(at)} (${element.dateTime.slice(0, 19).replace("T", " ")} UTC)`;
      if (element.title !== title) element.title = title;
    }
  };
  localize(document);
  // After a part was loaded.
  new MutationObserver((changes) => {
    if (changes.some((change) => change.addedNodes.length || change.type === "characterData" || change.type === "attributes")) localize(document);
  }).observe(document.body, {childList: true, subtree: true, characterData: true, attributes: true, attributeFilter: ["datetime"]});

  document.addEventListener("submit", (event) => {
    const question = event.target.dataset.ask;
    if (question && !confirm(question)) return event.preventDefault();
    if (event.target.method === "post") for (const button of event.target.querySelectorAll("button")) setTimeout(() => { button.disabled = true; });
  });
  // `anabranch serve` is away: said until a part is loaded again.
  const gone = document.getElementById("gone");
  document.addEventListener("htmx:error", () => { gone.hidden = false; });
  document.addEventListener("htmx:after:swap", () => { gone.hidden = true; });
  const slider = document.getElementById("step");
  if (slider) {
    const labels = slider.dataset.labels.split("|");
    const say = () => {
      document.getElementById("step-label").textContent = labels[slider.value];
      slider.setAttribute("aria-valuetext", labels[slider.value]);
    };
    slider.addEventListener("input", say);
    slider.form.addEventListener("submit", (event) => event.preventDefault());
    say();
  }
})();
