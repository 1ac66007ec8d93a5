"""The report: one self-contained HTML page of a finished run, its figures, and the numbers behind them. No Ray.

data = gather(run_dir, config)
pictures = draw(data)
html = render(data, pictures)
"""

from ldsaug_ray.report.data import ReportData
from ldsaug_ray.report.gather import gather
from ldsaug_ray.report.page import page_digest, render
from ldsaug_ray.report.pictures import draw

__all__ = ["ReportData", "draw", "gather", "page_digest", "render"]
