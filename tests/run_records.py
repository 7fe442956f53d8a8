"""Runs that write small text files as their products, for the tests of the run record."""

import json

from utils.application.run_record import RunRecord


def new_record(out, mode="full", pipeline="bias", **options):
    return RunRecord(out, pipeline, mode, {"clip_sigma": 4.0}, ["--mode", mode], **options)


def make(record, name, prodtype="MASTER_BIAS", **facts):
    path = record.claim(record.output_dir / name)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"{record.mode} {name}")
    record.add_product(path, prodtype, **facts)


def run(out, names, step="make_masters", **options):
    with new_record(out, **options) as record, record.step(step) as current:
        for name in names:
            make(record, name)
        current.summary = f"{len(names)} masters"
    return record


def run_file(out):
    return json.loads((out / "run.json").read_text())


def files(out):
    return sorted(path.relative_to(out).as_posix() for path in out.rglob("*") if path.is_file())
