// Shows the document that the page holds; on a served page, every newer one that the server sends.

const KINDS = { run: [makeRun, updateRun], runs: [makeRuns, updateRuns] };

/** Shows newer documents as they come, and says when they no longer do. */
function follow(root, address, show) {
  const link = root.querySelector(".link");
  const source = new EventSource(address);
  source.onopen = () => setText(link, "");
  source.onerror = () => setText(link, "The server does not answer; this is what it said last.");
  source.onmessage = (message) => show(JSON.parse(message.data));
}

function begin() {
  const root = document.getElementById("page");
  const first = JSON.parse(document.getElementById("document").textContent);
  const [make, update] = KINDS[first.kind];
  root.replaceChildren();
  make(root);
  update(root, first);
  const address = root.dataset.events;
  if (!address) return;
  if (first.kind === "run") root.querySelector(".back").append(html("a", { href: "../../" }, "All runs"));
  follow(root, address, (latest) => update(root, latest));
}

begin();
