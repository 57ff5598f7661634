"""A run as one self-contained page, `report.html`: what it shows, and how it is written.

`source` reads a run folder, `charts` and `decisions` say what is to be seen in it, `document` puts
that together as JSON, and `html` makes a page of the document and the files under `assets/`, which
draw it in the reader's browser. `siren.analysis.live` serves the same page while a run goes on.
"""
