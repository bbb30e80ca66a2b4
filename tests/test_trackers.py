"Weights & Biases, trackio and MLflow, by fakes: what they are sent, what they are not, and that they never cost a training."
import json, os, sys
from types import ModuleType, SimpleNamespace
import numpy as np, pytest, torch
from PIL import Image
from imgstudy import cli
from imgstudy.core import StudyError
from imgstudy.distributed import Team, train_distributed
from imgstudy.runs import make_run, run_id
from imgstudy.records.find import committed_records
from imgstudy.records.record import load_model
from imgstudy.study.create import create_run
from imgstudy.sweep.sweep import sweep
from imgstudy.training import fit
from imgstudy.training.checkpoint import Checkpoint
from imgstudy.training.train import train
from imgstudy.training.train_stacked import train_stacked
from imgstudy.training.trackers import answers, tracked_name, tracked_settings, tracker_address, tracker_cbs, tracking


class FakeRun:
    def __init__(self, given, got): self.given, self.got, self.ended = given, got, 0
    def log(self, values, step): self.got.append((self.given['name'], step, values))
    def finish(self): self.ended += 1


def fake_wandb(name='wandb'):
    module = ModuleType(name)
    module.runs, module.got = [], []
    def init(project, name, group, config, reinit=None, settings=None): # as both packages have them
        module.runs.append(FakeRun(dict(project=project, name=name, group=group, config=config, settings=settings), module.got))
        return module.runs[-1]
    module.init = init
    return module


def fake_mlflow():
    module = ModuleType('mlflow')
    module.params, module.got, module.ended = {}, [], []
    class Client:
        def create_run(self, experiment_id, run_name): return SimpleNamespace(info=SimpleNamespace(run_id=run_name))
        def log_param(self, id, k, v): module.params.setdefault(id, {})[k] = v
        def log_metric(self, id, k, v, step=None): module.got.append((id, step, {k: float(v)}))
        def set_terminated(self, id): module.ended.append(id)
    module.MlflowClient, module.set_experiment = Client, lambda name: SimpleNamespace(experiment_id='0')
    return module


@pytest.fixture
def photos(tmp_path):
    for c in ('anna', 'otto'):
        (tmp_path/'secret place'/'photos'/c).mkdir(parents=True)
        for i in range(12): Image.fromarray(np.full((9, 9, 3), 9*i + 99*(c == 'anna'), np.uint8)).save(tmp_path/'secret place'/'photos'/c/f'face{i}.png')
    return create_run(dataset=f"folder:{tmp_path/'secret place'/'photos'}", model='lenet5', size=32, epochs=3, bs=4)


@pytest.fixture(params=['wandb', 'trackio', 'mlflow'])
def tracker(request, monkeypatch):
    module = fake_mlflow() if request.param == 'mlflow' else fake_wandb(request.param)
    monkeypatch.setitem(sys.modules, request.param, module)
    monkeypatch.setenv('WANDB_MODE', 'offline') # the fake needs no network
    monkeypatch.delenv('MLFLOW_TRACKING_URI', raising=False)
    return request.param, module


def test_sends_the_history_and_nothing_else(tracker, photos, tmp_path):
    kind, module = tracker
    record = train(photos, root=tmp_path/'runs', track=kind)
    steps = sorted({step for _, step, _ in module.got})
    assert steps == [1, 2, 3] and {id for id, *_ in module.got} == {tracked_name(record.run)}
    sent = {(step, k): v for _, step, values in module.got for k, v in values.items()}
    for row in record.history.to_dict('records'):
        for k in ('train_loss', 'valid_loss', 'valid_accuracy', 'lr'): assert sent[row['epoch'], k] == pytest.approx(row[k])
    assert all(isinstance(v, (int, float)) for v in sent.values()), 'numbers alone'
    everything = json.dumps([module.got, module.params if kind == 'mlflow' else [r.given for r in module.runs]], default=str)
    for private in ('secret place', 'face', 'anna', 'otto', str(tmp_path)): assert private not in everything
    assert (module.ended == [tracked_name(record.run)]) if kind == 'mlflow' else ([r.ended for r in module.runs] == [1])


def test_is_no_part_of_the_run(tracker, photos, tmp_path):
    plain, tracked = train(photos, root=tmp_path/'a'), train(photos, root=tmp_path/'b', track=tracker[0])
    assert plain.id == tracked.id and plain.run == tracked.run
    a, b = (load_model(r).state_dict() for r in (plain, tracked))
    assert all(torch.equal(a[k], b[k]) for k in a)
    assert tracker[0] not in (tracked.path/'record.json').read_text() and 'IMGSTUDY_TRACK' not in os.environ


def test_a_continued_training_is_sent_whole(tracker, photos, tmp_path, monkeypatch):
    kind, module = tracker
    monkeypatch.setattr(Checkpoint, 'every', 0.)
    class Stop(Exception): pass
    real = Checkpoint.after_epoch
    def dies(self):
        real(self)
        if self.epoch == 1: raise KeyboardInterrupt
    monkeypatch.setattr(Checkpoint, 'after_epoch', dies)
    with pytest.raises(KeyboardInterrupt): train(photos, root=tmp_path/'runs')
    monkeypatch.setattr(Checkpoint, 'after_epoch', real)
    train(photos, root=tmp_path/'runs', track=kind)
    assert sorted({step for _, step, _ in module.got}) == [1, 2, 3]


def test_runs_trained_as_one_are_sent_apart(tracker, tmp_path, monkeypatch):
    kind, module = tracker
    runs = [create_run(dataset='digits', model='lenet5', epochs=2, subset=100, precision='fp32', seed=s) for s in (0, 1)]
    with tracking(kind): records = train_stacked(runs, root=tmp_path)
    for r in records: assert sorted({step for id, step, _ in module.got if id == r.id}) == [1, 2]
    assert (sorted(module.ended) == sorted(r.id for r in records)) if kind == 'mlflow' else all(r.ended == 1 for r in module.runs)


@pytest.mark.parametrize('where', ['init', 'log', 'finish'])
def test_an_error_of_a_tracker_costs_no_training(where, photos, tmp_path, monkeypatch, capsys):
    module = fake_wandb()
    def fails(*args, **kwargs): raise ConnectionError('the key is wrong\nsecond line')
    monkeypatch.setattr(*((module, 'init') if where == 'init' else (FakeRun, where)), fails)
    monkeypatch.setitem(sys.modules, 'wandb', module); monkeypatch.setenv('WANDB_MODE', 'offline')
    assert train(photos, root=tmp_path/'runs', track='wandb').outcome == 'finished'
    assert capsys.readouterr().out.count('wandb is off: ConnectionError: the key is wrong') == 1


@pytest.mark.parametrize('kind, variable, url', [('wandb', 'WANDB_BASE_URL', 'http://127.0.0.1:9'), ('mlflow', 'MLFLOW_TRACKING_URI', 'http://127.0.0.1:9'),
                                                 ('mlflow', 'MLFLOW_TRACKING_URI', 'https://no-such-host.invalid')])
def test_off_without_a_network(kind, variable, url, photos, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, kind, ModuleType(kind)); monkeypatch.setenv(variable, url); monkeypatch.delenv('WANDB_MODE', raising=False)
    assert tracker_address(kind) == url and not answers(url)
    with tracking(kind): assert tracker_cbs([photos]) == []
    assert f'{kind} is off: no answer' in capsys.readouterr().out


def test_one_that_is_not_installed_or_not_known(photos, monkeypatch, capsys):
    monkeypatch.setattr('imgstudy.training.trackers.find_spec', lambda name: None)
    monkeypatch.setenv('WANDB_MODE', 'offline'); monkeypatch.delitem(sys.modules, 'wandb', raising=False)
    with tracking('wandb'): assert tracker_cbs([photos]) == []
    assert "pip install 'imgstudy[wandb]'" in capsys.readouterr().out
    with pytest.raises(StudyError, match="Did you mean 'mlflow'"):
        with tracking('ml-flow'): pass


@pytest.fixture
def command(monkeypatch, capsys):
    def say(*words):
        monkeypatch.setattr(sys, 'argv', ['imgstudy', *map(str, words)])
        cli.main()
        return capsys.readouterr().out
    return say


def event_folders(top): return sorted({str(p.parent.relative_to(top)) for p in top.rglob('events.out.tfevents.*')})


@pytest.mark.parametrize('options, named', [('--root {}/own', 'own/tensorboard'), ('', 'runs/tensorboard'), ('--root {}/own --seeds 2', 'own/tensorboard'), ('--root ~/own', 'home/own/tensorboard'),
                                            ('--root {}/own TENSORBOARD', 'elsewhere')])
def test_event_files_are_beside_the_records_and_named_once(options, named, photos, tmp_path, monkeypatch, command):
    pytest.importorskip('tensorboard')
    monkeypatch.chdir(tmp_path); monkeypatch.setenv('HOME', str(tmp_path/'home')); monkeypatch.setattr(fit, '_said', set())
    for name in ('RUNS', 'TENSORBOARD'): monkeypatch.delenv(f'IMGSTUDY_{name}', raising=False)
    if 'TENSORBOARD' in options: monkeypatch.setenv('IMGSTUDY_TENSORBOARD', str(tmp_path/'elsewhere'))
    words = options.replace('TENSORBOARD', '').replace('{}', str(tmp_path)).split()
    said = command('train', f"folder:{tmp_path/'secret place'/'photos'}", '--model', 'lenet5', '--epochs', 1, '--size', 16, '--track', 'tensorboard', *words)
    ids = sorted(p.parent.name for p in tmp_path.rglob('record.json'))
    assert event_folders(tmp_path) == [f'{named}/{id}' for id in ids] and len(ids) == 1 + ('2' in words)
    assert said.count('The history is written to') == said.count(f'{tmp_path/named}, for tensorboard --logdir.') == 1
    assert (tmp_path/'runs').exists() == (not words), 'nobody asked for it'


def test_event_files_of_a_stack_are_beside_the_records(tmp_path, runs_dir):
    pytest.importorskip('tensorboard')
    runs = [create_run(dataset='digits', model='lenet5', epochs=1, subset=100, precision='fp32', seed=s) for s in (0, 1)]
    with tracking('tensorboard'): records = train_stacked(runs, root=tmp_path/'own')
    assert event_folders(tmp_path/'own') == [f'tensorboard/{r.id}' for r in records] and not runs_dir.exists()


@pytest.mark.parametrize('given', ['wandbb', 'tensorbord', 'wandb,ml-flow', 'mlflow trackio'])
def test_a_misspelt_tracker_is_said_at_once(given, photos, tmp_path, runs_dir, monkeypatch, command):
    place = f"folder:{tmp_path/'secret place'/'photos'}"
    nothing_read = lambda *args, **kwargs: pytest.fail('images were read')
    with monkeypatch.context() as m:
        for module in ('photos', 'training.train', 'training.train_stacked'): m.setattr(f'imgstudy.{module}.load_data', nothing_read)
        for words in (['--dry-run'], []):
            with pytest.raises(SystemExit): command('train', place, '--model', 'lenet5', '--track', given, *words)
        with pytest.raises(StudyError, match='There is no tracker'): train(photos, track=given)
        m.setenv('IMGSTUDY_TRACK', given)
        for ask in (lambda: train(photos), lambda: train_stacked([photos]), lambda: sweep([photos]), lambda: train_distributed(photos, Team(0, 1))):
            with pytest.raises(StudyError, match='There is no tracker'): ask()
    assert not [*tmp_path.rglob('record.json')], 'and is no failure of the run'


@pytest.mark.parametrize('given', ['wandbb', 'tensorbord', 'wandb,ml-flow', 'mlflow trackio'])
def test_a_search_says_a_misspelt_tracker_before_it_reads_images(given, photos, tmp_path, runs_dir, monkeypatch, command):
    monkeypatch.setenv('IMGSTUDY_TRACK', given)
    monkeypatch.setattr('imgstudy.best.load_data', lambda *args, **kwargs: pytest.fail('images were read'))
    with pytest.raises(SystemExit, match='There is no tracker'): command('best', f"folder:{tmp_path/'secret place'/'photos'}", '--budget', '9s', '--networks', 'resnet18')


@pytest.mark.parametrize('given', ['wandbb', 'tensorbord', 'wandb,ml-flow', 'mlflow trackio'])
def test_a_decision_says_a_misspelt_tracker_before_it_trains(given, runs_dir, monkeypatch, command):
    monkeypatch.setenv('IMGSTUDY_TRACK', given)
    monkeypatch.setattr('imgstudy.decide.get_record', lambda *args, **kwargs: pytest.fail('whole records were read'))
    one, other = sorted(p.name for p in committed_records().glob('digits-lenet5-*'))[:2]
    with pytest.raises(SystemExit, match='There is no tracker'): command('decide', one, other)


@pytest.mark.parametrize('init, sent', [('file:/home/me/secret/w.safetensors', 'own weights'), ('run:/home/me/secret/runs/secret_otto-lenet5-s0-1a2b3c4d', 'run:1a2b3c4d'),
                                        ('file:secret.pth@1a2b3c4d5e6f', 'own weights@1a2b3c4d5e6f'), ('imagenet', 'imagenet')])
@pytest.mark.parametrize('own', [dict(dataset='folder:/home/me/secret', layout='class/group'), dict(dataset='csv:/home/me/secret.csv', label_col='secret', image_col='secret'),
                                 dict(dataset='folder:secret_otto@1a2b3c4d5e6f'), dict(dataset='csv:secret_otto@1a2b3c4d5e6f', split_col='secret')])
def test_settings_and_name_hold_no_name_of_yours(init, sent, own):
    run = make_run(**own, model='lenet5', size=32, init=init, groups='name:^(secret.*)/img', epochs=3)
    settings = tracked_settings(run)
    assert 'secret' not in f'{settings} {tracked_name(run)}' and settings['epochs'] == 3 and settings['init'] == sent
    assert tracked_name(run)[-8:] == run_id(run)[-8:], 'the record is found by it'


def test_weights_and_biases_is_told_no_computer_and_no_program(tracker, photos, tmp_path):
    if tracker[0] != 'wandb': pytest.skip('its settings')
    train(photos, root=tmp_path/'runs', track='wandb')
    settings = tracker[1].runs[0].given['settings']
    assert settings['x_disable_meta'] and settings['x_disable_stats'] and settings['disable_git'] and not settings['save_code']
    assert not settings['x_save_requirements'] and (settings['host'], settings['program']) == ('private', 'imgstudy')
