// The page of a run.

/** Makes the parts of the page that are always there. */
function makeRun(root) {
  root.append(
    html(
      "header",
      {},
      html("p", { class: "eyebrow" }, html("span", { class: "back" }), html("span", { class: "where" })),
      html("h1"),
      html("p", { class: "state", role: "status" }, html("span", { class: "pill" }), html("span", { class: "link" })),
      html("p", { class: "lede" }),
      html("ul", { class: "notes" }),
      html("p", { class: "resume" }, "Go on with ", html("code")),
      html("dl", { class: "facts" }),
    ),
    html("div", { class: "sections" }),
    html("section", { class: "decisions", "aria-labelledby": "decisions" }, html("h2", { id: "decisions" }, "Decisions"), html("p", { class: "about-section" }, "What was chosen before each epoch, why, what was expected of it and of its neighbours, and what happened."), html("div", { class: "stretches" })),
    html("section", { class: "about", "aria-labelledby": "about" }, html("h2", { id: "about" }, "This run"), html("dl")),
  );
}

/** Shows a run's document. */
function updateRun(root, run) {
  const find = (selector) => root.querySelector(selector);
  setText(find(".where"), run.where);
  setText(find("h1"), run.heading);
  updateState(find(".pill"), run.state);
  setText(find(".lede"), run.lede);
  keyed(find(".notes"), run.notes, (_, i) => i, () => html("li"), setText);
  find(".resume").hidden = !run.resume;
  setText(find(".resume code"), run.resume);
  keyed(find(".facts"), run.facts, (fact) => fact.name, makeFact, updateFact);
  keyed(find(".sections"), run.sections, (section) => section.id, makeSection, updateSection);
  keyed(find(".stretches"), run.decisions, (stretch) => stretch.decisions[0].epoch, makeStretch, updateStretch);
  const about = run.about.map(([name, value]) => ({ name, value }));
  keyed(find(".about dl"), about, (line) => line.name, (line) => html("div", {}, html("dt", {}, line.name), html("dd")), (row, line) => setText(row.lastChild, line.value));
}

/** A state as a pill; its tone is never the only difference. */
function updateState(pill, state) {
  pill.className = `pill ${state.tone}`;
  setText(pill, state.text);
}

function makeFact(fact) {
  return html("div", {}, html("dt", {}, fact.name), html("dd", { class: "value" }), html("dd", { class: "note" }));
}

function updateFact(row, fact) {
  setText(row.querySelector(".value"), fact.value);
  setText(row.querySelector(".note"), fact.note);
  if (fact.share === null) return;
  const meter = row.querySelector(".meter") ?? row.appendChild(html("dd", { class: "meter", "aria-hidden": "true" }, html("span")));
  meter.firstChild.style.width = `${(fact.share * 100).toFixed(2)}%`;
}

function makeSection(section) {
  return html("section", { "aria-labelledby": section.id }, html("h2", { id: section.id }, section.title), html("div", { class: `charts of-${section.charts.length}` }));
}

function updateSection(element, section) {
  keyed(element.querySelector(".charts"), section.charts, (chart) => chart.id, makeFigure, updateFigure);
}

/** Epochs with the same action: one line, and a decision each inside. */
function makeStretch() {
  return html("details", { class: "stretch" }, html("summary", {}, html("span", { class: "which" }), " ", html("span", { class: "action" }), " ", html("span", { class: "reason" })), html("div"));
}

function updateStretch(element, stretch) {
  setText(element.querySelector(".which"), stretch.title);
  setText(element.querySelector(".action"), stretch.action);
  setText(element.querySelector(".reason"), stretch.decisions[0].reason);
  keyed(element.lastChild, stretch.decisions, (decision) => decision.epoch, makeDecision, () => {});
  // Who opens a stretch of one epoch wants to see that one.
  if (stretch.decisions.length === 1 && !element.open) element.querySelector(".decision").open = true;
}

/** A decision; what is written never changes. */
function makeDecision(decision) {
  const table = makeTable(`Epoch ${decision.epoch}: what happened, and what was expected`);
  fillTable(table, decision.table);
  return html(
    "details",
    { class: "decision" },
    html("summary", {}, html("span", { class: "which" }, `Epoch ${decision.epoch}`), " ", html("span", { class: "outcome" }, decision.outcome)),
    html("p", {}, decision.reason),
    decision.incidents ? html("p", { class: "incidents" }, decision.incidents) : null,
    table,
  );
}
