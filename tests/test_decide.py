"`decide`: the answer after the fewest trainings, goes on where it stopped, and refuses pairs that are none."
import dataclasses, os, shutil
import pytest
from imgstudy import cli
from imgstudy.core import StudyError
from imgstudy.decide import decide, decision_text, order_pairs
from imgstudy.records.record import read_record
from imgstudy.study.create import create_run
from imgstudy.training.train import train

adamw = create_run(dataset='digits', model='lenet5', epochs=2, subset=150, augment='none')
sgd = dataclasses.replace(adamw, recipe=dataclasses.replace(adamw.recipe, opt='sgd', lr=.05, nesterov=True))


@pytest.fixture(scope='module')
def two(tmp_path_factory):
    root = tmp_path_factory.mktemp('two')
    return [train(r, root=root) for r in (adamw, sgd)]


@pytest.fixture
def runs(two, tmp_path, monkeypatch):
    monkeypatch.setenv('IMGSTUDY_RUNS', str(tmp_path))
    for r in two: shutil.copytree(r.path, tmp_path/r.id)
    return [read_record(tmp_path/r.id) for r in two]


def trained(root): return len([*root.glob('*/record.json')])


def test_goes_on_where_the_budget_ended(runs, tmp_path, capsys):
    a, b = runs
    words = ['decide', a.id, str(b.path), '--margin', '3', '--budget']
    cli.answer([*words, '0.01s'])
    said = capsys.readouterr().out
    assert trained(tmp_path) == 2 and 'Not decided yet' in said and 'goes on' in said and 'of other seeds' in said
    cli.answer([*words, '4m'])
    said, n = capsys.readouterr().out, trained(tmp_path)
    assert 'is better.' in said or 'No difference beyond' in said
    assert n >= 10 and 'IMGSTUDY_DEADLINE' not in os.environ
    cli.answer([*words, '0.01s'])
    assert trained(tmp_path) == n and said.splitlines()[-3:] == capsys.readouterr().out.splitlines()[-3:]
    other = decide(b, a, margin=3, budget='1s', say=lambda line: None) # the other way round
    assert other.answer == {'a': 'b', 'b': 'a', 'none': 'none'}[decide(a, b, margin=3, budget='1s', say=lambda line: None).answer]


def test_what_is_half_done_comes_first(runs, tmp_path):
    a, b = runs
    train(dataclasses.replace(adamw, seed=5), root=tmp_path)
    assert [k for k, *_ in order_pairs(a.run, b.run, [tmp_path])][:3] == [0, 5, 1]


bad = {'--margin 0': 'points above 0', '--margin -1': 'points above 0', '--margin big': 'invalid float', '--budget soon': 'is no time'}


@pytest.mark.parametrize('words', bad)
def test_bad_options(words, runs):
    with pytest.raises(StudyError, match=bad[words]): cli.answer(['decide', *(r.id for r in runs), *words.split()])


@pytest.mark.parametrize('change,says', [(dict(subset=140), 'the subset'), (dict(split_seed=1), 'split_seed'), (dict(valid=0), 'validation'),
                                         (dict(dataset='digits_low', subset=None), 'the data set'), (dict(seed=4), 'the same training')])
def test_no_pair(change, says, runs, tmp_path):
    other = train(dataclasses.replace(adamw, **change), root=tmp_path)
    with pytest.raises(StudyError, match=says): cli.answer(['decide', runs[0].id, other.id])


def test_the_same_run_and_none(runs):
    with pytest.raises(StudyError, match='the same training'): cli.answer(['decide', runs[0].id, runs[0].id])
    with pytest.raises(StudyError, match='There is no record'): cli.answer(['decide', runs[0].id, 'digits-lenet5-s0-00000000'])


def test_a_failed_run(runs, tmp_path):
    broken = dataclasses.replace(sgd, recipe=dataclasses.replace(sgd.recipe, lr=1e30))
    with pytest.raises(Exception): train(broken, root=tmp_path)
    from imgstudy.runs import run_id
    with pytest.raises(StudyError, match='it failed'): decide(runs[0], run_id(broken))
