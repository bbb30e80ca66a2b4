"Trainings that share a device in turns: each ends as it would have ended alone, whatever becomes of the others."
import os, time
from functools import partial
import pytest, torch
from fastai.basics import Callback
from safetensors.torch import load_file
import imgstudy.training.train as training
from imgstudy.core import StudyError
from imgstudy.records.record import read_record
from imgstudy.runs import run_id
from imgstudy.study.create import create_run
from imgstudy.sweep.sweep import sweep
from imgstudy.training.capture import Engine
from imgstudy.training.checkpoint import Checkpoint, Paused, has_checkpoint
from imgstudy.training.streams import side_by_side
from imgstudy.training.train import Crowded, train, train_turns

quick = dict(dataset='digits', epochs=2, subset=200, bs=20)
# other optimiser, batch size, epochs, size and data; dropout, augmentation, mixed images, an average
kinds = [dict(model='lenet5', augment='standard', opt='sgd', lr=.01), dict(model='cnn3', dropout=.3, ema=.9, epochs=3, bs=32, precision='fp32'),
         dict(model='lenet5_bn', mixup=.4, seed=3, size=28, subset=100), dict(model='mlp_s', folds=3, fold=1, patience=1, clip=.5)]


def runs_of(**more): return [create_run(**quick | kind | more) for kind in kinds]


def begins(runs, root): return [lambda lane, r=r: train_turns(r, root=root, way=lane.fit) for r in runs]


def beside(runs, root, **options): return {run_id(runs[i]): lane for i, lane in side_by_side(begins(runs, root), **options)}


def same(a, b):
    "Whether two records have the same weights, history and predictions, to the bit."
    a, b = (read_record(r.path) for r in (a, b))
    weights = [load_file(r.path/'weights.safetensors') for r in (a, b)]
    rows = [r.history.drop(columns='seconds').to_csv() for r in (a, b)]
    preds = [r.predictions['log_probs'].tobytes() for r in (a, b)]
    return all(torch.equal(weights[0][k], weights[1][k]) for k in weights[0]) and rows[0] == rows[1] and preds[0] == preds[1]


@pytest.fixture(autouse=True)
def often(monkeypatch): monkeypatch.setattr(Engine, 'portion', 2)  # steps; many turns in an epoch


@pytest.fixture(scope='module')
def alone(tmp_path_factory):
    root = tmp_path_factory.mktemp('alone')
    return {run_id(r): train(r, root=root) for r in runs_of()}


@pytest.mark.parametrize('how', ['0', 'call'])
def test_each_ends_with_the_bits_that_it_has_alone(how, alone, tmp_path, monkeypatch):
    monkeypatch.setenv('IMGSTUDY_CAPTURE', how)
    runs = runs_of()
    whole = alone if how == '0' else {run_id(r): train(r, root=tmp_path/'alone') for r in runs}
    ends = beside(runs, tmp_path/'beside')
    for r in runs:
        record = ends[run_id(r)].result
        assert same(record, whole[run_id(r)])
        assert record.id == whole[run_id(r)].id and record.info['model'].pop('streams') == 4
        assert record.info['model'] == whole[run_id(r)].info['model']


def test_their_seconds_add_up(tmp_path):
    start = time.perf_counter()
    ends = beside(runs_of(), tmp_path)
    took = time.perf_counter() - start
    costs = [lane.result.info['cost'] for lane in ends.values()]
    assert sum(c['fit_seconds'] for c in costs) < took and sum(c['seconds'] for c in costs) < 1.2*took


def test_killed_and_continued_beside_others(alone, tmp_path, monkeypatch):
    class Kill(Callback):
        order = 95  # after `Checkpoint`
        def after_epoch(self):
            if self.epoch == 0: raise KeyboardInterrupt
    monkeypatch.setattr(Checkpoint, 'every', 0)
    with monkeypatch.context() as m:
        m.setattr(training, 'event_cbs', lambda id, **kwargs: [Kill()] if id == run_id(runs_of()[2]) else [])
        with pytest.raises(KeyboardInterrupt): beside(runs_of(), tmp_path)
    assert has_checkpoint(runs_of()[2], tmp_path) == 1
    ends = beside(runs_of(), tmp_path)
    assert all(same(lane.result, alone[id]) for id, lane in ends.items())
    assert ends[run_id(runs_of()[2])].result.info['cost']['resumed'] == [1]


def test_what_began_beside_others_may_end_alone(alone, tmp_path, monkeypatch):
    "And the other way round: the checkpoint is the same."
    run = runs_of()[1]
    monkeypatch.setattr(Checkpoint, 'every', 0)
    lanes = side_by_side(begins(runs_of(), tmp_path))
    for i, lane in lanes:
        if has_checkpoint(run, tmp_path): break
    lanes.close()
    record = train(run, root=tmp_path)
    assert same(record, alone[run_id(run)]) and record.info['cost']['resumed'] and record.info['model']['streams'] == 4


def test_one_that_fails_harms_no_other(alone, tmp_path):
    wild = create_run(**quick | dict(model='lenet5', opt='sgd', lr=1e30))
    nowhere = create_run(**quick | dict(model='lenet5', init=f'run:{tmp_path}/nothing'))
    ends = beside([wild, *runs_of(), nowhere], tmp_path)
    assert 'The loss became' in str(ends[run_id(wild)].error) and read_record(tmp_path/run_id(wild)).outcome == 'failed'
    assert isinstance(ends[run_id(nowhere)].error, StudyError)
    assert all(same(ends[id].result, record) for id, record in alone.items())


def test_a_deadline_pauses_each_and_the_rest_continues(alone, tmp_path, monkeypatch):
    class Short(training.Deadline):
        "As if time did only for an epoch of some."
        name = 'deadline'
        def after_validate(self): self.longest = 1e6 if self.n_epoch == 2 else 0.
    with monkeypatch.context() as m:
        m.setattr(training, 'Deadline', Short)
        m.setattr(training, 'deadline', lambda: time.time() + 1e5)
        ends = beside(runs_of(), tmp_path)
    paused = {id for id, lane in ends.items() if isinstance(lane.error, Paused)}
    assert paused == {run_id(r) for r in runs_of() if r.recipe.epochs == 2}
    ends |= beside([r for r in runs_of() if run_id(r) in paused], tmp_path)
    assert all(same(lane.result, alone[id]) for id, lane in ends.items())


def test_too_little_memory_beside_others_is_no_failure(tmp_path, monkeypatch):
    "Nothing is trained in smaller parts, which would change the bits."
    runs = runs_of()[:2]
    fit = training.create_learner
    def short(run, dls, *args): # the first of two learners does not fit
        if run == runs[0]: raise torch.OutOfMemoryError('CUDA out of memory.')
        return fit(run, dls, *args)
    monkeypatch.setattr(training, 'create_learner', short)
    ends = beside(runs, tmp_path)
    assert isinstance(ends[run_id(runs[0])].error, Crowded) and not (tmp_path/run_id(runs[0])).exists()
    assert ends[run_id(runs[1])].result.outcome == 'finished'


def test_a_sweep_side_by_side(alone, tmp_path):
    runs = [*runs_of(), create_run(**quick | dict(model='lenet5', opt='sgd', lr=1e30))]
    states = sweep(runs, tmp_path, notebook=False, backend='streams', stack='never')
    assert states.state.tolist() == ['done']*4 + ['failed'] and (tmp_path/'.failed').exists()
    for r in runs[:4]: assert same(read_record(tmp_path/run_id(r)), alone[run_id(r)])
    assert not list((tmp_path/'.claims').glob('*.json')) and not list((tmp_path/'.running').iterdir())


@pytest.mark.parametrize('gpu, notebook, stack, backend, chosen', [
    (True, False, 'auto', 'loky', 'streams'), (True, True, 'auto', 'loky', 'loky'), (True, False, 'never', 'loky', 'loky'),
    (False, False, 'auto', 'loky', 'loky'), (True, False, 'auto', 'dask', 'dask'), (False, False, 'never', 'streams', 'streams')])
def test_where_a_sweep_does_so_by_itself(gpu, notebook, stack, backend, chosen, monkeypatch):
    from imgstudy.sweep.sweep import _shares
    from imgstudy.sweep.workers import run_notebook, run_plain
    monkeypatch.setattr(torch.cuda, 'is_available', lambda: gpu)
    assert _shares(backend, stack, run_notebook if notebook else run_plain) == chosen
