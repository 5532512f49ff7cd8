"""A page in the browser that restores photos: ``zoo app``.

``server.py`` serves the page, ``page.py`` lays it out with Gradio, ``models.py`` holds the networks
on offer, and ``work.py`` restores, without Gradio, what ``zoo restore`` would.
"""
