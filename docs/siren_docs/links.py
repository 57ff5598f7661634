"""Links to what is in the repository and is no page: folders, and Markdown that the site leaves out."""

from __future__ import annotations

from pathlib import Path

from docutils import nodes
from sphinx import addnodes
from sphinx.application import Sphinx

PAGE_OF_FOLDER = {
    "agents": "agents/default-2026/CARD",
    "deploy": "deploy/README",
    "envs": "docs/reference/worlds",
    "experiments": "experiments/README",
    "workloads": "docs/reference/workload",
}
"""A folder of the repository, and the page that tells of it."""


def mend(app: Sphinx, document: nodes.document) -> None:
    """Turns links to folders into links to pages, and links to other files into copies of them."""
    env = app.env
    for node in list(document.findall(addnodes.pending_xref)):
        if node.get("reftype") != "myst":
            continue
        target = node["reftarget"]
        if node["refdomain"] == "doc":
            if target not in env.found_docs:
                node.replace_self(_copy_of(node, f"/{target}.md"))
            continue
        relative, path = env.relfn2path(target.partition("#")[0], env.docname)
        if not target.startswith("#") and Path(path).is_dir():
            page = PAGE_OF_FOLDER.get(relative.strip("/"))
            if page:
                node["refdomain"], node["reftarget"], node["reftargetid"] = "doc", page, None
            else:
                node.replace_self(node.children)


def _copy_of(node: addnodes.pending_xref, path: str) -> nodes.Element:
    """A link to a copy of a file, which the site takes along."""
    return addnodes.download_reference(
        "",
        "",
        *node.children,
        refdomain=None,
        reftarget=path,
        refdoc=node["refdoc"],
        reftype="myst",
        refexplicit=True,
    )
