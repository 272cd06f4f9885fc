"""The demo page's looks. Colours are gradio's variables, so that light and dark both work; fonts are the system's."""

FONTS = ("system-ui", "-apple-system", "Segoe UI", "Roboto", "sans-serif")
MONOSPACED = ("ui-monospace", "Consolas", "monospace")

CSS = """
.gradio-container { max-width: 1120px !important; margin: 0 auto !important; }
.gradio-container .html-container { padding: 0; }
.gradio-container h1 { font-size: 1.75rem; line-height: 1.2; margin: 0 0 .25rem; font-weight: 650; }
.gradio-container h2 { font-size: 1.15rem; line-height: 1.3; margin: 1rem 0 .5rem; font-weight: 600; }
#answer h2 { margin-top: 0; }
.gradio-container .prose p, .gradio-container .html-container p { margin: .35rem 0; }
.quiet { color: var(--body-text-color-subdued); font-size: .9rem; }
.note { border-left: 3px solid var(--color-accent); padding: .25rem 0 .25rem .75rem; font-size: .92rem; }
.alert { border: 1px solid #c8322b; border-left-width: 5px; border-radius: 6px; padding: .6rem .8rem; margin: 0; }
.caption { font-size: 1.3rem; line-height: 1.35; }

ol.classes { list-style: none; margin: 0 0 .5rem; padding: 0; }
ol.classes li { display: grid; grid-template-columns: 1fr auto; gap: .1rem .75rem; margin: 0 0 .5rem; padding: 0; }
ol.classes .name { overflow-wrap: anywhere; }
ol.classes li:first-child .name, ol.classes li:first-child .number { font-weight: 650; font-size: 1.15rem; }
ol.classes .number { font-variant-numeric: tabular-nums; }
ol.classes .bar { grid-column: 1 / -1; height: 6px; border-radius: 3px; background: var(--border-color-primary); }
ol.classes .bar span { display: block; height: 100%; border-radius: 3px; background: var(--color-accent); }

.gradio-container table {
  width: 100%; border-collapse: collapse; border: 0 !important; font-variant-numeric: tabular-nums; margin: .4rem 0;
}
.gradio-container th, .gradio-container td {
  text-align: left; vertical-align: bottom; background: none !important; overflow-wrap: anywhere;
  padding: .35rem .6rem .35rem 0 !important; border: 0 !important;
  border-bottom: 1px solid var(--border-color-primary) !important;
}
.gradio-container thead, .gradio-container tbody, .gradio-container tr { border: 0 !important; }
.gradio-container th { font-weight: 600; font-size: .88rem; color: var(--body-text-color-subdued); }

.scroll { max-height: 18rem; overflow: auto; }

.colours { display: flex; gap: .5rem; align-items: center; font-size: .85rem; }
.colours img { flex: 1; min-width: 0; height: 12px; margin: 0; border-radius: 3px; }
/* What was found of another image must not be taken for what is being computed. */
.pending > * { visibility: hidden; }
@media (max-width: 640px) { #image { height: 230px !important; } } /* no taller than the map beside it */
#picture:has(.wrap.full:not(.hide)) img { visibility: hidden; }

.maps { display: grid; grid-template-columns: repeat(auto-fill, minmax(min(240px, 45%), 1fr)); gap: .9rem; }
.maps figure { margin: 0; min-width: 0; }
.maps img { width: 100%; display: block; border-radius: 6px; margin: 0; }
.maps figcaption { display: flex; flex-direction: column; margin-top: .3rem; font-size: .9rem; line-height: 1.3; }
.maps figcaption strong { overflow-wrap: anywhere; }
.maps figcaption span { color: var(--body-text-color-subdued); font-variant-numeric: tabular-nums; }
.maps .missing p {
  aspect-ratio: 1; overflow: auto; margin: 0; padding: .6rem; font-size: .85rem; border-radius: 6px;
  background: var(--background-fill-secondary); overflow-wrap: anywhere;
}

:focus-visible { outline: 3px solid var(--color-accent) !important; outline-offset: 2px; }
"""
