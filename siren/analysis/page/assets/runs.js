// The list of all runs.

/** Makes the parts of the list that are always there. */
function makeRuns(root) {
  root.append(
    html("header", {}, html("p", { class: "eyebrow" }, html("span", {}, "Siren")), html("h1"), html("p", { class: "state", role: "status" }, html("span", { class: "link" })), html("p", { class: "lede" })),
    html("ul", { class: "runs" }),
  );
}

/** Shows the list's document. */
function updateRuns(root, list) {
  setText(root.querySelector("h1"), list.heading);
  setText(root.querySelector(".lede"), list.lede);
  keyed(root.querySelector(".runs"), list.runs, (run) => run.name, makeEntry, updateEntry);
}

function makeEntry(run) {
  return html(
    "li",
    {},
    html("div", { class: "which" }, html("a", { href: `runs/${encodeURIComponent(run.name)}/` }, run.name), html("span", { class: "workload" })),
    html("p", {}, html("span", { class: "pill" })),
    html("dl", { class: "numbers" }),
  );
}

function updateEntry(entry, run) {
  setText(entry.querySelector(".workload"), run.workload);
  updateState(entry.querySelector(".pill"), run.state);
  keyed(entry.querySelector(".numbers"), run.facts, (fact) => fact.name, makeFact, updateFact);
}
