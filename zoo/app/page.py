"""The page of the app, in Gradio: what the visitor sees, and what the buttons do."""

from __future__ import annotations

import html
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote

import gradio as gr

from zoo.app.models import Models
from zoo.app.visitors import Visitors
from zoo.app.work import Cancelled, Preview, Result, packed
from zoo.data.formats import PHOTO_EXTENSIONS
from zoo.errors import ZooError
from zoo.inference import RestoreSettings
from zoo.ops.precision import DTYPES
from zoo.recipe_files import summary_of
from zoo.shipped import list_models

AUTOMATIC = -1
TILES = {"automatic": AUTOMATIC, "whole photo": 0} | {f"{n} pixels": n for n in (128, 256, 512)}
FORMATS = {"that of the photo": "", "PNG": "png", "JPEG": "jpg", "WebP": "webp", "TIFF": "tif"}

STYLE = """
#view .box { max-height: 75vh; max-width: 100%; overflow: auto; width: fit-content; }
#view .both { cursor: ew-resize; position: relative; user-select: none; }
#view img { display: block; height: 100%; inset: 0; margin: 0; max-width: none; position: absolute;
  width: 100%; }
#view .after { clip-path: inset(0 0 0 var(--at)); }
#view .line { background: #fff; bottom: 0; box-shadow: 0 0 3px #000; left: var(--at);
  position: absolute; top: 0; width: 2px; }
#view input { margin: .5rem 0; width: 100%; }
#view .ends { display: flex; justify-content: space-between; }
#report :is(table, tr, td) { border: none; }
#report td { overflow-wrap: break-word; padding: 0 1rem .2rem 0; vertical-align: top; }
#report .error { color: #b00; }
.dark #report .error { color: #f88; }
#report .warning { color: #850; }
.dark #report .warning { color: #fb6; }
"""

SLIDE = """
const scale = () => element.style.setProperty("--pixel", 1 / window.devicePixelRatio + "px");
scale();
window.addEventListener("resize", scale);
const move = (percent) => {
  element.querySelector(".both").style.setProperty("--at", percent + "%");
  element.querySelector("input").value = percent;
};
element.addEventListener("input", (event) => move(event.target.value));
for (const type of ["pointerdown", "pointermove"])
  element.addEventListener(type, (event) => {
    const both = event.target.closest(".both");
    if (!both || !event.buttons) return;
    event.preventDefault();
    const { left, width } = both.getBoundingClientRect();
    move(Math.min(100, Math.max(0, 100 * (event.clientX - left) / width)));
  });
"""
"""Moves the line between before and after, by the slider or on the picture. A pixel of the picture
is one of the screen."""


def build(models: Models, visitors: Visitors) -> gr.Blocks:
    """Return the page."""

    def restore(
        photos: list[str] | None,
        model: str,
        tile: int,
        precision: Any,
        ensemble: bool,
        format: str,
        request: gr.Request,
        progress: Any = gr.Progress(),  # noqa: B008  # how Gradio wants it
    ) -> Iterator[tuple[Any, ...]]:
        paths = [Path(photo) for photo in photos or []]
        if not paths:
            yield _shown([], note="Drop a photo first.")
            return
        job, results = visitors.begin(request.session_hash or ""), list[Result]()
        try:
            settings = RestoreSettings(
                tile=None if tile == AUTOMATIC else tile,
                ensemble=ensemble,
                precision=precision,
            )
            network = models.get(model)
            with visitors.slots:
                for result in job.run(
                    network,
                    paths,
                    settings,
                    format=format,
                    progress=lambda done: progress(done, desc="Restoring"),
                ):
                    results.append(result)
                    yield _shown(results)
            yield _shown(results, archive=packed(results, job.folder / "restored.zip"))
        except Cancelled:
            if not job.removed:  # otherwise nobody looks, and the files are gone
                yield _shown(results, note="Cancelled.")
        except ZooError as error:
            yield _shown(results, note=str(error))

    def cancel(request: gr.Request) -> None:
        visitors.cancel(request.session_hash or "")

    def leave(request: gr.Request) -> None:
        visitors.leave(request.session_hash or "")

    with gr.Blocks(
        title="Mamba Restoration Zoo",
        analytics_enabled=False,
        fill_width=True,
        delete_cache=(3600, 24 * 3600),
    ) as page:
        previews = gr.State({})
        with gr.Row():
            with gr.Column(scale=1, min_width=340):
                gr.Markdown("## Mamba Restoration Zoo\nPhotos stay on the machine of this server.")
                photos = gr.File(
                    label="Photos",
                    file_count="multiple",
                    file_types=[*PHOTO_EXTENSIONS],
                    elem_id="photos",
                    height=180,
                )
                model = gr.Dropdown(models.names, label="Model", elem_id="model")
                about = gr.Markdown(_about(models.names[0]))
                with gr.Accordion("Settings", open=False, elem_id="settings"):
                    tile = gr.Dropdown(
                        [*TILES.items()],
                        value=AUTOMATIC,
                        label="Tiles",
                        info="Smaller tiles take less memory.",
                        elem_id="tile",
                    )
                    precision = gr.Radio(
                        [*DTYPES], value="fp32", label="Precision", elem_id="precision"
                    )
                    ensemble = gr.Checkbox(
                        label="Self-ensemble: 8 times as long, a little better", elem_id="ensemble"
                    )
                    format = gr.Dropdown(
                        [*FORMATS.items()], value="", label="Format", elem_id="format"
                    )
                with gr.Row():
                    start = gr.Button("Restore", variant="primary", elem_id="restore")
                    stop = gr.Button("Cancel", elem_id="cancel")
            with gr.Column(scale=3):
                report = gr.HTML(elem_id="report", js_on_load=None, min_height=60)
                which = gr.Dropdown([], label="Show", visible=False, elem_id="which")
                view = gr.HTML(elem_id="view", js_on_load=SLIDE, apply_default_css=False)
                files = gr.File(
                    label="Restored", file_count="multiple", visible=False, elem_id="restored"
                )
        running = start.click(
            restore,
            [photos, model, tile, precision, ensemble, format],
            [report, previews, which, view, files],
            concurrency_limit=visitors.at_once,
            show_progress_on=[report],
            api_visibility="private",
        )
        # Gradio drops what waits; what runs already looks after each tile.
        stop.click(cancel, cancels=[running], queue=False, api_visibility="private")
        model.input(_about, model, about, queue=False, api_visibility="private")
        which.input(_view_of, [previews, which], view, queue=False, api_visibility="private")
        page.unload(leave)
    return page


def _about(name: str) -> str:
    return summary_of(name) if name in list_models() else "Weights that this server was given."


def _shown(
    results: Sequence[Result], *, note: str = "", archive: Path | None = None
) -> tuple[Any, ...]:
    """Return what the components show: report, previews, their list, the slider, the files."""
    previews = {
        f"{number}. {result.name}": result.preview
        for number, result in enumerate(results, 1)
        if result.preview is not None
    }
    outputs = [str(result.output) for result in results if result.output is not None]
    first = next(iter(previews), None)
    return (
        _report(results, note),
        previews,
        gr.Dropdown(choices=[*previews], value=first, visible=len(previews) > 1),
        _view_of(previews, first),
        gr.File(value=outputs + ([str(archive)] if archive else []), visible=bool(outputs)),
    )


def _report(results: Sequence[Result], note: str) -> str:
    rows = []
    for result in results:
        became = (
            f"{result.seconds:.1f} s"
            if result.output is not None
            else f'<span class="error">{_text(result.error)}</span>'
        )
        became += "".join(
            f'<br><span class="warning">{_text(warning)}</span>' for warning in result.warnings
        )
        rows.append(f"<tr><td>{_text(result.name)}</td><td>{became}</td></tr>")
    return f'<table>{"".join(rows)}</table><p class="note">{_text(note)}</p>'


def _view_of(previews: Mapping[str, Preview], name: str | None) -> str:
    preview = previews.get(name or "")
    if preview is None:
        return ""
    before, after = (
        f"gradio_api/file={quote(str(path))}" for path in (preview.before, preview.after)
    )
    size = (
        f"width: calc({preview.width} * var(--pixel, 1px)); "
        f"height: calc({preview.height} * var(--pixel, 1px))"
    )
    cut = " The middle of the photo." if preview.cut else ""
    return (
        '<div class="ends"><span>before, enlarged</span>'
        f"<span>100 %.{cut}</span><span>after</span></div>"
        '<input type="range" min="0" max="100" value="50" aria-label="before and after">'
        f'<div class="box"><div class="both" style="{size}; --at: 50%">'
        f'<img class="before" src="{_text(before)}" alt="before" draggable="false">'
        f'<img class="after" src="{_text(after)}" alt="after" draggable="false">'
        '<div class="line"></div></div></div>'
    )


def _text(text: str) -> str:
    """Return text as HTML. Gradio reads braces and dollars as those of a template."""
    escaped = html.escape(text)
    for sign in "{}$`":
        escaped = escaped.replace(sign, f"&#{ord(sign)};")
    return escaped
