"""The documentation site: ``python -m build_tools.site``, which ``make docs`` runs.

``pages.py`` gathers the pages of the repository, ``reference.py`` writes those that the registry
and the recipes tell, ``notebook.py`` runs the notebook, and ``links.py`` checks every link of what
MkDocs has built. Nothing is fetched, and what is generated lies in ``build/site``.
"""
