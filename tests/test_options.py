import argparse
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from utils.application.options import (
    SHARED_OPTIONS,
    CommandParser,
    SharedOptions,
    add_shared_options,
    both,
    byte_count,
    parse_numbers,
)
from utils.domain.detector import Detector, Measured
from utils.errors import InputError, OptionError
from utils.version import __version__

ROOT = Path(__file__).parents[1]


def parse(*argv, names=SHARED_OPTIONS, **defaults):
    parser = CommandParser(prog="tool")
    add_shared_options(parser, names, **defaults)
    return SharedOptions.from_args(parser.parse_args(argv))


def refused(capsys, *argv):
    with pytest.raises(SystemExit, match="2"):
        parse(*argv)
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.count("\n") == 1
    return captured.err


def test_defaults_are_those_of_the_contract():
    options = parse()
    assert (options.combine, options.clip_sigma, options.temp_tolerance) == ("sigclip", 4.0, 0.5)
    assert (options.adu_scale, options.saturation, options.gain) == ("auto", "auto", None)
    assert options.memory_limit == 2_000_000_000
    assert options.jobs == len(os.sched_getaffinity(0))
    assert (options.plots, options.verbosity, options.overwrite, options.dry_run) == (
        "summary",
        0,
        False,
        False,
    )
    assert options == SharedOptions()


def test_every_option_reaches_its_field(tmp_path):
    sheet = tmp_path / "detector.json"
    Detector(Measured(1.25, 0.01, "e-/adu"), adu_scale=16.0).write(sheet)
    words = f"--basepath {tmp_path} --detector {sheet} --output-dir out --select gain=100 "
    words += "--select shape=3x4 --combine sigclip "
    words += "--clip-sigma 5 --temp-tolerance 1 --adu-scale 16 --saturation 4000 --gain 1.5 --jobs 3 "
    words += "--memory-limit 512MB --overwrite --dry-run --plots all --verbose --log-file log.txt"
    expected = SharedOptions(
        basepath=tmp_path,
        detector=sheet,
        output_dir=Path("out"),
        select=("gain=100", "shape=3x4"),
        combine="sigclip",
        clip_sigma=5.0,
        temp_tolerance=1.0,
        adu_scale=16.0,
        saturation=4000.0,
        gain=1.5,
        jobs=3,
        memory_limit=512_000_000,
        overwrite=True,
        dry_run=True,
        plots="all",
        verbosity=1,
        log_file=Path("log.txt"),
    )
    assert parse(*words.split()) == expected
    # Both spellings of each option with a dash mean the same.
    assert parse(*re.sub(r"(?<=[a-z])-(?=[a-z])", "_", words).split()[4:]) == parse(*words.split()[4:])
    assert parse("--quiet").verbosity == -1


def test_both_spellings():
    assert both("output-dir") == both("output_dir") == ("--output-dir", "--output_dir")
    assert both("jobs") == ("--jobs",)


def test_only_the_options_asked_for_exist(capsys):
    parser = CommandParser(prog="tool")
    add_shared_options(parser, ("output-dir", "jobs"), output_dir=Path("bias_output"))
    assert SharedOptions.from_args(parser.parse_args([])).output_dir == Path("bias_output")
    with pytest.raises(SystemExit, match="2"):
        parser.parse_args(["--gain", "2"])
    assert "unrecognized arguments: --gain" in capsys.readouterr().err
    with pytest.raises(ValueError, match="not shared options: no-such-option"):
        add_shared_options(CommandParser(prog="tool"), ("no-such-option",))
    with pytest.raises(ValueError, match="not shared options: gain"):
        add_shared_options(CommandParser(prog="tool"), ("jobs",), gain=2)


def test_version_and_help(capsys):
    with pytest.raises(SystemExit, match="0"):
        parse("--version")
    assert capsys.readouterr().out == f"tool {__version__}\n"
    with pytest.raises(SystemExit, match="0"):
        parse("--help")
    text = capsys.readouterr().out
    assert all(f"--{name}" in text for name in SHARED_OPTIONS)
    assert "None" not in text
    assert "False" not in text


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("--combine average", "invalid choice: 'average'"),
        ("--clip-sigma -4", "got '-4', expected a number above 0"),
        ("--clip-sigma nan", "got 'nan', expected a number above 0"),
        ("--temp_tolerance 0", "expected a number above 0"),
        ("--adu-scale sixteen", "got 'sixteen'"),
        ("--saturation inf", "got 'inf'"),
        ("--gain 0", "got '0'"),
        ("--jobs 0", "expected a whole number above 0"),
        ("--jobs 1.5", "expected a whole number above 0"),
        ("--memory-limit much", "expected an amount of memory"),
        ("--select gain", "expected KEY=VALUE"),
        ("--plots some", "invalid choice: 'some'"),
        ("--quiet --verbose", "not allowed with argument"),
        ("--out x", "unrecognized arguments: --out x"),
    ],
)
def test_a_wrong_value_is_one_line_and_status_2(capsys, words, message):
    line = refused(capsys, *words.split())
    assert message in line
    assert line.startswith("tool: error: ")


def test_values_that_do_not_go_together(tmp_path):
    with pytest.raises(OptionError, match="--clip-sigma: works with --combine sigclip only, got median"):
        parse("--combine", "median", "--clip-sigma", "3")
    assert parse("--combine", "median").combine == "median"
    with pytest.raises(OptionError, match=r"--clip-sigma: got 0\.5, expected 1 or more"):
        parse("--clip-sigma", "0.5")
    with pytest.raises(OptionError, match="--memory-limit: got 1000 bytes, expected at least 16MB"):
        parse("--memory-limit", "1kB")
    with pytest.raises(OptionError, match=r"--basepath .*none: got no such folder"):
        parse("--basepath", str(tmp_path / "none"))
    (tmp_path / "file").write_text("x")
    with pytest.raises(OptionError, match=r"--basepath .*file: got a file"):
        parse("--basepath", str(tmp_path / "file"))
    with pytest.raises(OptionError, match=r"--output-dir .*file: got a file"):
        parse("--output-dir", str(tmp_path / "file"))
    (tmp_path / "in").mkdir()
    for out in (tmp_path, tmp_path / "in"):
        with pytest.raises(OptionError, match=r"--output-dir .* holds --basepath"):
            parse("--basepath", str(tmp_path / "in"), "--output-dir", str(out))
    assert parse("--basepath", str(tmp_path / "in"), "--output-dir", str(tmp_path / "in" / "out")).basepath
    with pytest.raises(OptionError, match="--basepath: got none"):
        parse().need_basepath()
    with pytest.raises(OptionError, match="--gain: got -1, expected a number above 0"):
        SharedOptions(gain=-1)
    with pytest.raises(OptionError, match="--plots: got 'some', expected one of all, summary, none"):
        SharedOptions(plots="some")


def test_memory_sizes():
    assert [byte_count(t) for t in ("2GB", "2g", "512 MiB", "1.5kB", "800", "1T")] == [
        2_000_000_000,
        2_000_000_000,
        512 * 1024**2,
        1500,
        800,
        10**12,
    ]
    with pytest.raises(argparse.ArgumentTypeError, match="'-2GB'"):
        byte_count("-2GB")


def test_numbers_in_one_string_or_several_words():
    assert parse_numbers(["-5 0 5.5"]) == parse_numbers(["-5", "0", "5.5"]) == parse_numbers("-5,0 , 5.5")
    assert parse_numbers(["-5", "0", "-5"]) == (-5.0, 0.0)
    assert parse_numbers(None) is None
    with pytest.raises(OptionError, match="--exptimes: got 'x', expected numbers"):
        parse_numbers(["1 x"], "--exptimes")
    with pytest.raises(OptionError, match="--temps: got 'nan'"):
        parse_numbers("nan")
    with pytest.raises(OptionError, match="--temps: got no number"):
        parse_numbers([" "])


def test_negative_temperatures_on_a_command_line():
    parser = CommandParser(prog="tool")
    parser.add_argument("--temps", nargs="+")
    for words in (["--temps", "-5 0"], ["--temps", "-5", "0"], ["--temps=-5 0"], ["--temps", "-5.0", "0"]):
        assert parse_numbers(parser.parse_args(words).temps) == (-5.0, 0.0)


def test_starting_a_command_imports_nothing_heavy():
    code = (
        "import sys, utils.application.options, utils.application.run_record, utils.application.command\n"
        "print({'astropy', 'pandas', 'matplotlib', 'scipy', 'tqdm', 'jinja2'} & set(sys.modules))"
    )
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=True
    )
    assert result.stdout.strip() == "set()"


def test_gain_given_beats_the_detector_which_beats_the_header(tmp_path):
    sheet = tmp_path / "detector.json"
    Detector(Measured(1.25), adu_scale=16.0).write(sheet)
    assert SharedOptions(gain=1.5, detector=sheet).egain(0.1, 16.0) == 1.5
    assert SharedOptions(detector=sheet).egain(0.1, 16.0) == 1.25
    assert SharedOptions().egain(0.1, 16.0) == pytest.approx(1.6)
    assert SharedOptions().egain(None, 16.0) is None
    with pytest.raises(InputError, match=r"detector\.json: aduscale 16, expected 1 as the frames"):
        SharedOptions(detector=sheet).egain(0.1, 1.0)


@pytest.mark.parametrize(
    ("plots", "count", "side", "expected"),
    [
        ("none", 3, 64, []),
        ("all", 3, 4096, [0, 1, 2]),
        ("summary", 12, 512, list(range(12))),
        ("summary", 13, 64, [0, 12]),
        ("summary", 5, 2048, [0, 4]),
        ("summary", 1, 4096, [0]),
    ],
)
def test_few_small_groups_are_all_drawn(plots, count, side, expected):
    assert SharedOptions(plots=plots).pictured(count, (side, side), (0, count - 1)) == expected
