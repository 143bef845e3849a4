"""A report as a page for people: one HTML file without scripts, whose bytes follow from the report alone.

from assay.render.page import render
from assay.render.source import look

seen, source = look(Path("reports/5f0c…"), keys=[Path("operator.pem")], now=datetime.now(UTC))
Path("report.html").write_bytes(render(source))
"""
