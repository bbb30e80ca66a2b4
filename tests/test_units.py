"A study as jobs: `plan` lists them, `work` does one, again and again without harm, also after SIGTERM."
import json, os, signal, subprocess, sys, time
import pytest
from imgstudy import cli
from imgstudy.core import StudyError
from imgstudy.sweep.units import get_unit, study_units


def planned(capsys, *words):
    capsys.readouterr()
    cli.answer(['plan', *words, '--json'])
    return json.loads(capsys.readouterr().out)


def test_each_unit_is_done_once(runs_dir, capsys):
    words = 'cifar100_deeper', '--scale', 'smoke', '--seeds', '2', '--stack', 'always'
    units = planned(capsys, *words)
    assert {len(u['runs']) for u in units} == {2} and all(u['seconds'] > 0 and not u['needs']['missing'] for u in units)
    work = lambda: cli.answer(['work', units[-1]['unit'], '--no-notebook'])
    work()
    times = {p: p.stat().st_mtime_ns for p in runs_dir.glob('*/record.json')}
    assert len(times) == 2
    work()
    assert times == {p: p.stat().st_mtime_ns for p in runs_dir.glob('*/record.json')}
    again = planned(capsys, *words)
    assert [u['unit'] for u in again] == [u['unit'] for u in units] and [u['state'] for u in again] == ['left']*(len(units) - 1) + ['done']


def test_lists_are_words_in_a_table(runs_dir, capsys):
    cli.answer(['plan', 'cifar100_deeper', '--scale', 'smoke'])
    head, *rows = capsys.readouterr().out.splitlines()
    assert head.split('\t')[:3] == ['unit', 'runs', 'state'] and rows and not any(c in '\n'.join(rows) for c in '[]{}')


def test_sigterm_leaves_a_checkpoint(runs_dir):
    unit = next(u for u in study_units('cifar100_deeper', 'smoke') if u.runs[0].model == 'lenet5_bn')
    code = ('import dataclasses, imgstudy.sweep.units as u; one = u.get_unit({name!r}); r = one.runs[0]; '
            'r = dataclasses.replace(r, recipe=dataclasses.replace(r.recipe, epochs=3000)); '
            'u.get_unit = lambda name: u.Unit(name, (r,)); u.work_unit({name!r}, None, notebook=False)').format(name=unit.name)
    process = subprocess.Popen([sys.executable, '-c', code], env=os.environ | dict(OMP_NUM_THREADS='1'), stdout=subprocess.DEVNULL,
                               stderr=subprocess.DEVNULL)
    for _ in range(1200):
        if [*runs_dir.glob('.*.checkpoint')]: break
        assert process.poll() is None
        time.sleep(.1)
    process.send_signal(signal.SIGTERM)
    assert process.wait(60) != 0
    assert [*runs_dir.glob('.*.checkpoint')] and not [*runs_dir.glob('*/record.json')]


@pytest.mark.parametrize('words,says', [('plan dog_breds', 'dog_breeds'), ('plan dog_breeds --scale big', 'no scale'), ('plan dog_breeds --stack no', 'way to stack'),
                                        ('work dog_breeds', 'is no unit'), ('work dog_breeds/small/none', 'no unit'), ('work x/y/z', 'no study'),
                                        ('work dog_breeds/small/none --time-limit soon', 'is no time')])
def test_bad_input(words, says, runs_dir):
    with pytest.raises(StudyError, match=says): cli.answer(words.split())


def test_a_unit_is_found_by_its_name():
    for unit in study_units('stl5_transfer', 'smoke'): assert get_unit(unit.name) == unit
