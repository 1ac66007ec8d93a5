"""`ldsaug sample`: images drawn from a trained model, to a folder of their own."""

from __future__ import annotations

from contextlib import ExitStack

from ldsaug_ray.commands.plan import print_sample_plan
from ldsaug_ray.commands.summary import print_summary
from ldsaug_ray.config import Config
from ldsaug_ray.domains import domain_of
from ldsaug_ray.engines import engine_of
from ldsaug_ray.errors import InputError
from ldsaug_ray.run.opening import open_run_dir, open_sample_dir
from ldsaug_ray.run.progress import make_console
from ldsaug_ray.stages.sample import Request, draw_samples, sentence_of
from ldsaug_ray.stages.shared.checks import require_faiss
from ldsaug_ray.stages.shared.job import Job


def sample_command(config: Config, *, dry_run: bool = False, overwrite: bool = False, verbose: bool = False) -> int:
    """Draw `sample.n` images; prints a summary to standard output. Returns the exit code.

    Raises:
        LdsaugError: the message says what to do.
    """
    require_faiss()
    domain = domain_of(config)
    run = open_run_dir(config, create=False)
    request = Request.of(config, run)
    out = open_sample_dir(config, create=False)
    other = out.holds_other("sample", request.fingerprint)
    if other and not overwrite:
        raise InputError(
            f"sample.out {out.root.uri}: holds {domain.unit} of another request (other settings or another model); "
            "choose another folder, or pass --overwrite to discard them"
        )
    complete = out.is_complete("sample", request.fingerprint)
    state = "complete" if complete else "continue" if out.interrupted("sample", request.fingerprint) else "run"
    if dry_run:
        print_sample_plan(config, out, request.model, state)
        return 0
    if not complete:
        engine = engine_of(config, verbose=verbose)
        for name, root in (("run_dir", run.root), ("sample.out", out.root)):
            engine.check_place(name, root.uri)
        with ExitStack() as held:
            out = open_sample_dir(config, held=held)
            draw_samples(Job(config, run, make_console(), held.enter_context(engine)), out, request)
    print_summary(out, ["sample"], {"sample": state}, domain.words)
    print(domain.words(sentence_of(out.require("sample"))))
    return 0
