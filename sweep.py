"""Run a task many times: for every seed the searches, trainings of what they find, and baselines; then a report.

  python sweep.py --task mmimdb --seeds 0 1 2 --strategies published gdas --baselines late-fusion random unimodal \\
    --out sweeps/films -- --datadir data/mmimdb --search:epochs 12
  python sweep.py --out sweeps/films                        # continues a killed sweep, and retries what failed
  python sweep.py --task vqa --seeds 0 1 --out sweeps/vqa --slurm slurm_partition=gpu gpus_per_node=1 timeout_min=600

Flags after -- are passed to every script that has them. <out>/commands.txt lists one command per line, and
<out>/report.html is the report. See docs/report.md.
"""

import threading
from pathlib import Path

import report
from engine import run_log
from engine.arguments import RecipeParser, non_negative_int, positive_int
from sweeping import cluster, running
from sweeping.plan import BASELINES, Planner, commands_text, jobs_of, plan_file
from util.cli import UserError, run_cli
from util.files import read_json, write_json, write_text
from util.locks import locked

KEPT = ("task", "seeds", "strategies", "baselines", "flags")


def get_args_parser():
    """Flags of a sweep."""
    parser = RecipeParser(__doc__)
    parser.add_argument("--task", metavar="NAME", help="mmimdb, ntu, ego, vqa, vgd, itm, or one of your own")
    parser.add_argument("--seeds", type=non_negative_int, nargs="+", default=[0, 1, 2], help="seeds of the runs")
    parser.add_argument("--strategies", nargs="*", metavar="NAME", default=["published"], help="search strategies")
    parser.add_argument("--baselines", nargs="*", choices=tuple(BASELINES), default=[], help="rows without a search")
    parser.add_argument("--out", required=True, metavar="DIR", help="folder of the sweep")
    parser.add_argument("--jobs", type=positive_int, help="jobs at a time (default: one per entry of --gpus, or 1)")
    parser.add_argument("--gpus", nargs="+", metavar="GPU", default=[], help="GPUs, one entry per job: 0 1, or 0,1 2,3")
    parser.add_argument(
        "--slurm", nargs="*", metavar="KEY=VALUE", help="submit to a cluster, with submitit's parameters"
    )
    parser.add_argument("--dry_run", action="store_true", help="write and print the commands without running them")
    parser.add_argument("--only", metavar="NAME", help="run a single command of the sweep, such as seed-0/search-gdas")
    parser.add_argument("--job", type=non_negative_int, metavar="N", help="run a single job, as the cluster does")
    parser.add_argument("flags", nargs="*", metavar="-- FLAGS", help="flags for the scripts")
    return parser


def main(argv=None):
    """Plan the sweep or read its plan, run what is not finished, and write the report."""
    args = get_args_parser().parse_args(argv)
    run_log.show()
    out = Path(args.out)
    jobs = planned(args, out)
    if args.only:
        return running.run_only(args.only, jobs)
    if args.job is not None:
        if args.job >= len(jobs):
            raise UserError(f"--job {args.job}: the sweep has {len(jobs)} jobs, counted from 0")
        return raise_failures(list(running.run_job(out, jobs[args.job], {}, threading.Event())), out)
    if args.dry_run:
        print(commands_text(jobs), end="")
        return None
    with locked(out / ".lock", busy=f"another process is already running {out}; wait for it, or end it"):
        outcomes, failed = [], 0
        if args.slurm is not None:
            failed = cluster.wait_for(cluster.submit_jobs(out, jobs, args.jobs, cluster.parameters_of(args.slurm)))
        else:
            outcomes = running.run_jobs(out, jobs, args.jobs or len(args.gpus) or 1, args.gpus)
        if any((out / "runs").rglob("args.json")):  # else every command failed before it began; report that instead
            report.main([str(out / "runs"), "--out", str(out / "report.html")])
            report.main([str(out / "runs"), "--out", str(out / "report.md")])
    if failed:
        raise UserError(f"{failed} of {len(jobs)} jobs failed; see {out / 'slurm'}, and start the sweep again to retry")
    return raise_failures(outcomes, out)


def planned(args, out):
    """The jobs of the sweep in ``out``; if the flags describe a new one, it is planned and written there.

    Raises:
        UserError: There is neither, or commands of the sweep in ``out`` would change.
    """
    path = out / "sweep.json"
    known = jobs_of(read_json(path), out) if path.exists() else []
    if known and (args.only or args.job is not None or not args.task):
        listed = out / "commands.txt"
        if not args.only and args.job is None and listed.exists():
            write_text(listed, commands_text(known))  # with the present path of a sweep that was moved
        return known
    if not args.task:
        raise UserError(f"--out {out}: it holds no sweep; pass --task and --seeds to begin one")
    jobs = Planner(args.task, out, args.flags).jobs(args.seeds, args.strategies, args.baselines)
    lines = {command.name: command.line() for job in known for command in job}
    changed = [c.name for job in jobs for c in job if c.name in lines and lines[c.name] != c.line()]
    if changed:
        raise UserError(f"{out} holds a sweep in which {changed[0]} has other flags; name another --out, or drop them")
    write_json(path, plan_file(jobs, {name: getattr(args, name) for name in KEPT}))
    write_text(out / "commands.txt", commands_text(jobs))
    return jobs


def raise_failures(outcomes, out):
    """Return the outcomes; raise a `UserError` if a command failed."""
    failed = [outcome.command.name for outcome in outcomes if outcome.state == running.FAILED]
    if failed:
        names = ", ".join(failed[:5])
        raise UserError(
            f"{len(failed)} commands failed: {names}; see {out / 'logs'}, and start the sweep again to retry"
        )
    return outcomes


if __name__ == "__main__":
    run_cli(main)
