"use strict";

// What comes from models and data files is put into the page as text (textContent), never as markup.

const read = (id) => {
  const found = document.getElementById(id);
  return found === null ? null : JSON.parse(found.textContent);
};

const make = (kind, text, className) => {
  const element = document.createElement(kind);
  if (text !== undefined) element.textContent = text;
  if (className !== undefined) element.className = className;
  return element;
};

// ---- charts

const LOOK = {
  background: null,
  font: "system-ui, sans-serif",
  view: { stroke: "var(--line)" },
  axis: {
    labelColor: "var(--ink)", titleColor: "var(--ink)", domainColor: "var(--muted)", tickColor: "var(--muted)", gridColor: "var(--line)",
    labelFontSize: 12, titleFontSize: 12, labelLimit: 240,
  },
  // a name without its end may be the name of another checkpoint, so on a phone names are small rather than cut
  axisLeft: innerWidth < 600 ? { labelFontSize: 10.5, labelLimit: 190 } : {},
  axisTop: { labelAngle: innerWidth < 600 ? -45 : 0 },
  legend: { labelColor: "var(--ink)", titleColor: "var(--ink)", labelFontSize: 12 },
};

const views = [];

const draw = async () => {
  const figures = read("figures");
  for (const place of document.querySelectorAll(".chart")) {
    const spec = read(`${place.id}-spec`);
    spec.datasets = { ...spec.datasets, figures: figures ?? [] };
    const options = { renderer: "svg", ast: true, actions: false, config: LOOK };
    const result = await vegaEmbed(place, spec, options);
    views.push({ view: result.view, signals: place.dataset.signals.split(" ") });
  }
};

const selects = document.querySelectorAll("[data-signal]");
for (const select of selects) {
  select.addEventListener("change", () => {
    // the same choice stands in several places of the page
    for (const other of selects) if (other.dataset.signal === select.dataset.signal) other.value = select.value;
    for (const { view, signals } of views) {
      if (signals.includes(select.dataset.signal)) view.signal(select.dataset.signal, select.value).runAsync();
    }
  });
}

const fit = () => {
  for (const { view } of views) view.signal("width", view.container().clientWidth).run();
};

addEventListener("beforeprint", () => {
  document.body.classList.add("paper");
  fit();
});
addEventListener("afterprint", () => {
  document.body.classList.remove("paper");
  fit();
});

// ---- tables

for (const input of document.querySelectorAll("[data-finds]")) {
  const rows = input.closest("details").querySelectorAll("tbody tr");
  input.addEventListener("input", () => {
    const wanted = input.value.toLowerCase();
    for (const row of rows) row.hidden = !row.textContent.toLowerCase().includes(wanted);
  });
}

// ---- items

const PAGE = 20;

const sideCard = (title, question, side) => {
  const card = document.getElementById("side-card").content.cloneNode(true);
  card.querySelector("h4").textContent = title;
  card.querySelector(".question").textContent = question.question;
  const options = card.querySelector(".options");
  question.options.forEach((text, option) => {
    const probability = side.probs === null ? null : side.probs[option];
    const line = make("li", text, option === side.option ? "chosen" : "");
    if (probability !== null) {
      line.append(` — ${probability.toFixed(3)}`);
      const bar = make("span", "", "bar");
      const filled = make("i");
      filled.style.width = `${100 * probability}%`;
      bar.append(filled);
      line.append(bar);
    }
    options.append(line);
  });
  const mass = side.mass === null ? "" : `, label mass ${side.mass.toFixed(3)}`;
  card.querySelector(".note").textContent = `status ${side.status}${mass}`;
  const replies = card.querySelector(".replies");
  for (const reply of side.replies) {
    const shown = reply.shown.map(([label, option]) => `${label} = option ${option + 1}`).join(", ");
    replies.append(make("p", `${shown}; prompt ${reply.prompt}${reply.finish === null ? "" : `; finish reason ${reply.finish}`}`, "note"));
    if (reply.reasoning !== null) replies.append(make("pre", reply.reasoning));
    if (reply.text !== null) replies.append(make("pre", reply.text));
    if (reply.error !== null) replies.append(make("p", `error: ${reply.error}`));
  }
  return card;
};

const itemCard = (one, { questions, kinds }) => {
  const card = document.getElementById("item-card").content.cloneNode(true);
  card.querySelector(".kind").textContent = `${kinds[one.kind]}:`;
  const measures = [["CS", one.match], ["PCS", one.pcs]].filter(([, value]) => value !== null).map(([name, value]) => `${name} ${value.toFixed(3)}`);
  const place = [one.item_id, one.domain, one.checkpoint_id, one.variant, one.language, `trial ${one.trial}`, ...measures, ...(one.flags ?? [])];
  card.querySelector(".place").textContent = place.join(" · ");
  const details = card.querySelector("details");
  details.addEventListener("toggle", () => {
    const sides = details.querySelector(".sides");
    if (sides.childElementCount > 0) return;
    const question = questions[one.question];
    sides.append(sideCard("Words", question.word, one.word), sideCard("Deeds", question.deed, one.deed));
  });
  return card;
};

const showItems = (sample) => {
  const filter = document.getElementById("item-filter");
  const list = document.getElementById("item-list");
  const more = document.getElementById("more-items");
  for (const name of ["domain", "checkpoint_id", "variant"]) {
    for (const value of new Set(sample.cases.map((one) => one[name]))) filter.elements[name].append(make("option", value));
  }
  const texts = sample.cases.map((one) => JSON.stringify([one, sample.questions[one.question]]).toLowerCase());
  let found = [];
  let shown = 0;
  const extend = () => {
    for (const one of found.slice(shown, shown + PAGE)) list.append(itemCard(one, sample));
    shown = Math.min(found.length, shown + PAGE);
    document.getElementById("item-count").textContent = `${shown} of ${found.length} shown`;
    more.hidden = shown === found.length;
  };
  const apply = () => {
    const wanted = Object.fromEntries(new FormData(filter));
    const text = wanted.text.toLowerCase();
    found = sample.cases.filter((one, place) =>
      ["kind", "domain", "checkpoint_id", "variant"].every((name) => wanted[name] === "" || one[name] === wanted[name])
      && texts[place].includes(text));
    list.replaceChildren();
    shown = 0;
    extend();
  };
  filter.addEventListener("input", apply);
  filter.addEventListener("submit", (event) => event.preventDefault());
  more.addEventListener("click", extend);
  apply();
};

const sample = read("sample");
if (sample !== null) showItems(sample);
draw().then(() => { document.documentElement.dataset.drawn = "yes"; });
