"What a sweep knows of how long an epoch takes before any like it has ended: from steps that were timed, and from trainings that were begun."
import json, time
import pytest
from imgstudy.core import environment
from imgstudy.study.create import create_run
from imgstudy.study.estimate import Speed, epoch_key
from imgstudy.sweep.sweep import need_of, sweep
from imgstudy.sweep.workers import Plan, run_plain
from imgstudy.training import checkpoint, train_stacked as stacking
from imgstudy.training.checkpoint import begun_epoch, checkpoint_file, drop_checkpoint, noted_file
from imgstudy.training.train import train
from kills import kill_after

quick = dict(dataset='digits', model='lenet5', bs=20, subset=400, epochs=3, augment='none', precision='fp32')


@pytest.fixture(autouse=True)
def nothing_kept(tmp_path, monkeypatch):
    monkeypatch.setenv('IMGSTUDY_CACHE', str(tmp_path/'cache'))
    monkeypatch.delenv('IMGSTUDY_DEADLINE', raising=False)


def limited(root, seconds=1000.): return Plan(root, run_plain, time.time(), 'token', soft=time.time() + seconds)


@pytest.fixture
def ticks(monkeypatch):
    "A clock for deadlines on which each step takes a second."
    from types import SimpleNamespace
    from imgstudy.training.step import Step
    done, call = [], Step.__call__
    monkeypatch.setenv('IMGSTUDY_CAPTURE', 'call')
    monkeypatch.setattr(Step, '__call__', lambda self: (done.append(1), call(self)) and None)
    monkeypatch.setattr(checkpoint, 'time', SimpleNamespace(time=lambda: float(len(done)), perf_counter=time.perf_counter))
    return done


def give_up(run, root, monkeypatch, limit='15'):
    "Train until it is seen that the first epoch of 20 s does not end in time."
    with monkeypatch.context() as m:
        m.setenv('IMGSTUDY_DEADLINE', limit)
        m.setattr('imgstudy.training.train.time', checkpoint.time)
        with pytest.raises(checkpoint.Paused, match='an epoch takes about 20'): train(run, root=root)


def test_an_epoch_that_was_given_up_is_known_and_not_begun_again(ticks, tmp_path, monkeypatch, capsys):
    "Neither that training nor its like."
    run = create_run(**quick)
    give_up(run, tmp_path, monkeypatch)
    assert begun_epoch(run, tmp_path)['seconds'] == 20 and begun_epoch(run, tmp_path)['members'] == 1
    speed = Speed()
    assert need_of([run], speed, limited(tmp_path)) == 22 and speed.seconds(run) == 62
    like, other = create_run(**quick | dict(seed=4, lr=.1)), create_run(**quick | dict(bs=10))
    assert need_of([like], speed, limited(tmp_path)) == 22 and need_of([other], speed, limited(tmp_path)) == 0
    def never(run, root): raise AssertionError('begun')
    sweep([run, like], tmp_path, runner=never, time_limit=10)
    assert 'too short for an epoch' in capsys.readouterr().out


def test_with_more_time_it_is_begun_again_and_its_note_goes(ticks, tmp_path, monkeypatch):
    run = create_run(**quick)
    give_up(run, tmp_path, monkeypatch)
    assert train(run, root=tmp_path).outcome == 'finished' and not noted_file(checkpoint_file(run, tmp_path)).exists()
    assert begun_epoch(run, tmp_path) == {}


@pytest.mark.parametrize('stacked', [1, 2])
def test_the_epochs_of_a_paused_training_are_known(stacked, tmp_path, monkeypatch):
    "Of all members together, as those of a finished record."
    from kills import Kill, Killed
    runs = [create_run(**quick | dict(seed=s)) for s in range(stacked)]
    if stacked == 1: kill_after(2, monkeypatch, lambda: train(runs[0], root=tmp_path))
    else:
        with monkeypatch.context() as m:
            m.setattr(checkpoint.Checkpoint, 'every', 0)
            m.setattr(stacking, 'event_cbs', lambda *args, **kwargs: [Kill(2)])
            with pytest.raises(Killed): stacking.train_stacked(runs, root=tmp_path)
    speed = Speed()
    assert 2 < need_of(runs, speed, limited(tmp_path)) < 60 and need_of(runs, speed, Plan(tmp_path, run_plain, 0., 'token')) == 0
    assert (speed.epoch(runs[0], stacked), speed.epoch(runs[0], 3 - stacked)) == (speed.begun[epoch_key(runs[0], stacked)], None)


def test_a_stack_that_is_given_up_is_known_by_its_first_run(ticks, tmp_path, monkeypatch):
    "Also if it is the first part of a group; it says nothing of that run alone."
    runs = [create_run(**quick | dict(seed=s)) for s in range(4)]
    with monkeypatch.context() as m:
        m.setenv('IMGSTUDY_DEADLINE', '15')
        with pytest.raises(checkpoint.Paused, match='an epoch takes about 20'): stacking.train_stacked(runs[:2], root=tmp_path)
    speed = Speed()
    assert need_of(runs, speed, limited(tmp_path)) == 22 and need_of(runs[:1], speed, limited(tmp_path)) == 0


@pytest.mark.parametrize('change', [dict(gpu='another'), dict(cpu='another'), dict(threads=99), dict(versions=dict(torch='1.0'))], ids=str)
def test_what_another_device_has_begun_says_nothing(change, tmp_path):
    run, env = create_run(**quick), environment()
    text = dict(seconds=500., members=1, environment=env)
    noted_file(checkpoint_file(run, tmp_path)).write_text(json.dumps(text))
    assert need_of([run], Speed(), limited(tmp_path)) == 502
    noted_file(checkpoint_file(run, tmp_path)).write_text(json.dumps(text | dict(environment=env | change)))
    assert need_of([run], Speed(), limited(tmp_path)) == 0


@pytest.mark.parametrize('text', ['', '{"seconds": 1', '[]', '7'])
def test_a_damaged_note_says_nothing(text, tmp_path):
    run = create_run(**quick)
    noted_file(checkpoint_file(run, tmp_path)).write_text(text)
    assert need_of([run], Speed(), limited(tmp_path)) == 0
    drop_checkpoint(checkpoint_file(run, tmp_path))
    assert not [*tmp_path.glob('.*.seconds')]


@pytest.mark.parametrize('file, value', [('alone_steps.json', .5), ('streams_alone.json', 40.)])
def test_a_step_that_was_timed_tells_what_an_epoch_takes(file, value, tmp_path):
    "Half a second for 20 images: 20 steps, and 288 images to validate at a third of the cost."
    run = create_run(**quick)
    assert need_of([run], Speed(), limited(tmp_path)) == 0
    stacking.measured_once(lambda run, n: value, file, run, 1)
    epoch = .5*(20 + 288/60)
    speed = Speed()
    assert need_of([run], speed, limited(tmp_path)) == pytest.approx(2 + epoch) and speed.seconds(run) == pytest.approx(2 + 3*epoch)
    assert speed.epoch(create_run(**quick | dict(lr=.1, seed=3))) == pytest.approx(epoch)
    assert speed.epoch(create_run(**quick | dict(subset=800))) == pytest.approx(.5*(40 + 288/60)) # the same step, more of them
    for other in (dict(bs=40), dict(model='mlp_s'), dict(augment='basic'), dict(opt='sgd'), dict(ema=.9)):
        assert speed.epoch(create_run(**quick | other)) is None
    assert speed.epoch(run, 8) is None and Speed(threads=99).epoch(run) is None


def test_a_step_that_is_timed_meanwhile_is_known_then():
    run, speed = create_run(**quick), Speed()
    assert speed.epoch(run) is None
    stacking.measured_once(lambda run, n: 1., 'alone_steps.json', run, 1)
    assert speed.epoch(run) == pytest.approx(20 + 288/60)


def test_a_finished_record_counts_before_all_else(tmp_path):
    run = create_run(**quick)
    stacking.measured_once(lambda run, n: 100., 'alone_steps.json', run, 1)
    noted_file(checkpoint_file(run, tmp_path)).write_text(json.dumps(dict(seconds=500., members=1, environment=environment())))
    speed = Speed([train(run, root=tmp_path/'done')])
    assert need_of([run], speed, limited(tmp_path)) < 60


def measured_on_a_card():
    "Rows of the committed measurements of a GPU: how fast each network trains."
    from imgstudy.core import checkout_path
    record = json.loads((checkout_path('report/records/benchmarks')/'gpu-NVIDIA-H200.json').read_text())
    return [r for r in record['rows'] if r['group'] == 2 and 'images_per_s' in r]


@pytest.mark.parametrize('row', measured_on_a_card(), ids=lambda r: r['name'])
def test_a_guess_for_a_card_is_within_a_factor_of_two_of_what_was_measured(row):
    "Without validation and test images, whose share differs."
    from imgstudy.study.estimate import guess_seconds
    run = create_run(dataset='cifar10', model=row['model'], bs=row['bs'], augment=row.get('augment', 'basic'), valid=0)
    epoch = guess_seconds(run, 11, 'cuda') - guess_seconds(run, 1, 'cuda')
    assert .5 < epoch/10/(50_000/row['images_per_s']) < 2


@pytest.mark.parametrize('model, epochs, bs, seconds', [('resnet9', 20, 512, 24), ('resnet9', 50, 128, 47), ('lenet5', 50, 128, 21)])
def test_a_guess_of_a_whole_training_on_a_card_is_no_longer_many_times_too_long(model, epochs, bs, seconds):
    from imgstudy.study.estimate import guess_seconds
    assert seconds/2 < guess_seconds(create_run(dataset='cifar10', model=model, epochs=epochs, bs=bs), device='cuda') < 2*seconds


@pytest.mark.parametrize('model, bs', [('vit', 64), ('vit', 128), ('cnn3', 64), ('lenet5', 64), ('resnet9', 128)])
def test_a_guess_for_a_core_is_within_a_factor_of_two_of_the_median_of_the_records(model, bs):
    "A ViT has few operations in many layers."
    import numpy as np
    from imgstudy.records.find import committed_records
    from imgstudy.records.record import read_record
    from imgstudy.study.estimate import guess_seconds
    ratios = []
    for file in committed_records().glob(f'cifar10-{model}-*/record.json'):
        r = read_record(file.parent)
        env, kind = r.info['environment'], r.info['model'].get('precision')
        if r.outcome == 'finished' and r.run.recipe.bs == bs and env['cpu'].startswith('AMD') and env['threads'] == 1:
            ratios.append(guess_seconds(r.run, len(r.history), 'cpu', kind)/r.info['cost']['seconds'])
    assert len(ratios) > 1 and .5 < np.median(ratios) < 2
