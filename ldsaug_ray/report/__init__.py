"""The report: one self-contained HTML page of a finished run, its figures, and the numbers behind them. No Ray.

data = gather(run_dir, config)
pictures = pictures_of(data)
html = report_page(data, pictures)
"""

from ldsaug_ray.report.data import ReportData
from ldsaug_ray.report.gather import gather
from ldsaug_ray.report.page import findings, page_digest, report_page
from ldsaug_ray.report.pictures import pictures_of
