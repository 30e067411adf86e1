"""Build ablation tables and write them as text, Markdown, HTML, LaTeX, CSV and JSON."""
