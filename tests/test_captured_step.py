"A step as a function of tensors does what fastai's loop does, for every option of a recipe; on a GPU it is captured, and says so."
import pytest, torch
from fastai.basics import Callback
from imgstudy.core import seed_everything
from imgstudy.data.loaders import create_dls
from imgstudy.data.split import load_data, part_of
from imgstudy.study.create import create_run
from imgstudy.training import capture
from imgstudy.training.capture import CaptureFailed
from imgstudy.training.fit import Diverged, fit
from imgstudy.training.learner import create_learner
from imgstudy.training.stacked import fit_stacked, stack_learners
from imgstudy.training.step import Step
from imgstudy.training.train import train
from imgstudy.training.train_stacked import train_stacked
from kills import kill_after
from safetensors.torch import load_file

base = dict(dataset='digits', model='lenet5', epochs=2, precision='fp32', subset=200, bs=32, augment='none')
loaded = {}

def data_of(run):
    if part_of(run) not in loaded: loaded[part_of(run)] = load_data(run)
    return loaded[part_of(run)]

def learner_of(run):
    seed_everything(run.seed)
    return create_learner(run, create_dls(run, data_of(run)))

def fitted(run, how, monkeypatch, cbs=()):
    monkeypatch.setenv('IMGSTUDY_CAPTURE', how)
    learn = learner_of(run)
    return learn, fit(learn, run.recipe, lines=1, cbs=cbs)

def gap(a, b): return max((x.float() - y.float()).abs().max().item() for x, y in zip(a.state_dict().values(), b.state_dict().values()))

cases = dict(
    adamw=dict(), adam=dict(opt='adam'), sgd=dict(opt='sgd', lr=.01), nesterov=dict(opt='sgd', nesterov=True, lr=.01), shift=dict(augment='shift'), flip=dict(augment='flip'), basic=dict(augment='basic'), erasing=dict(augment='erasing'),
    standard=dict(augment='standard'), affine=dict(augment='affine'), cifar100=dict(augment='cifar100'),
    cutout=dict(augment='cutout'), resized_crop=dict(augment='resized_crop'), clip=dict(clip=.5), ema=dict(ema=.9), decay_all=dict(decay_all=True),
    label_smoothing=dict(label_smoothing=.1), patience=dict(patience=1, min_epochs=1, epochs=4), valid0=dict(valid=0),
    **{s: dict(schedule=s) for s in ('flat', 'linear', 'cosine', 'exponential', 'step')}, warmup=dict(warmup=1, schedule='cosine'))

@pytest.mark.parametrize('name', cases)
def test_called_steps_end_where_fastais_loop_ends(name, monkeypatch):
    run = create_run(**(base | cases[name]))
    (a, ha), (b, hb) = (fitted(run, how, monkeypatch) for how in ('0', 'call'))
    assert gap(a.model, b.model) < (1e-6 if run.recipe.opt == 'sgd' else 1e-5)
    assert len(ha.rows) == len(hb.rows) and ha.images == hb.images and ha.best_epoch == hb.best_epoch
    for p, q in zip(ha.rows, hb.rows):
        for k in set(p) - {'seconds'}: assert p[k] == pytest.approx(q[k], abs=1e-4, nan_ok=True), k
    assert a.recorder.hps['lr'] == pytest.approx(b.recorder.hps['lr'], rel=1e-9)
    assert [float(v) for v in a.recorder.losses] == pytest.approx([float(v) for v in b.recorder.losses], abs=1e-4)
    for l in (a, b): assert {type(v) for v in l.recorder.losses[:-1]} == {float} # no tensor of each step stays in memory
    assert b.layout['not_captured'] == 'its steps are called one by one'


@pytest.mark.parametrize('model, options', [
    ('cnn3', dict(dropout=.3)), ('cnn_custom', dict(augment='basic')), ('convnext', dict(layer_decay=.7)),
    ('convnext', dict(frozen_epochs=1)), ('vit', dict(tune='gradual', epochs=3))])
def test_statistics_dropout_and_frozen_layers_too(model, options, monkeypatch):
    "By SGD: Adam amplifies the last bit of gradients that are zero but for rounding."
    run = create_run(**(base | dict(model=model, opt='sgd', lr=.01, subset=128) | options))
    (a, ha), (b, hb) = (fitted(run, how, monkeypatch) for how in ('0', 'call'))
    assert gap(a.model, b.model) < 1e-6
    for p, q in zip(ha.rows, hb.rows): assert p['train_loss'] == pytest.approx(q['train_loss'], abs=1e-4)


@pytest.mark.parametrize('n, options', [(1, {}), (3, {}), (3, dict(opt='sgd', lr=.01)), (3, dict(model='vit')), (2, dict(model='cnn3', dropout=.2))])
def test_stacks_of_every_size(n, options, monkeypatch):
    runs = [create_run(**(base | dict(seed=s, clip=.5 if s == 1 else None, augment=['none', 'basic', 'standard'][s]) | options)) for s in range(n)]
    def done(how):
        monkeypatch.setenv('IMGSTUDY_CAPTURE', how)
        learn = stack_learners([learner_of(r) for r in runs], [r.recipe for r in runs])
        return fit_stacked(learn, lines=1)
    for a, b in zip(done('0'), done('call')):
        assert gap(a.learn.model, b.learn.model) < 1e-5 and a.images == b.images
        for p, q in zip(a.rows, b.rows): assert p['train_loss'] == pytest.approx(q['train_loss'], abs=1e-4)


class Mine(Callback):
    "A callback of a user, who looks at batches."
    def __init__(self): self.seen = 0
    def after_batch(self): self.seen += self.training

def test_a_callback_that_acts_on_batches_gets_them(monkeypatch):
    run, mine = create_run(**base), Mine()
    learn, _ = fitted(run, 'call', monkeypatch, [mine])
    assert mine.seen == 2*(200//32) and learn.layout['not_captured'] == 'mine acts on each batch'


@pytest.mark.parametrize('options, why', [(dict(mixup=.2), 'mix_up acts on each batch'), (dict(cutmix=1.), 'cut_mix acts on each batch')])
def test_what_cannot_be_replayed_says_why(options, why, monkeypatch):
    assert fitted(create_run(**(base | options)), 'call', monkeypatch)[0].layout['not_captured'] == why


def test_weights_that_a_user_froze_stay_as_they_are(monkeypatch):
    monkeypatch.setenv('IMGSTUDY_CAPTURE', 'call')
    learn = learner_of(run := create_run(**(base | dict(wd=.5, decay_all=True))))
    first = next(learn.model.parameters()).requires_grad_(False)
    before = first.clone()
    fit(learn, run.recipe, lines=1)
    assert torch.equal(first, before) and 'are frozen' in learn.layout['not_captured']


def test_on_a_cpu_fastais_loop_trains(monkeypatch):
    monkeypatch.delenv('IMGSTUDY_CAPTURE', raising=False)
    learn = learner_of(run := create_run(**base))
    fit(learn, run.recipe, lines=1)
    if not torch.cuda.is_available():
        assert learn.layout['captured'] is False and learn.layout['not_captured'] == 'it trains on a CPU'


def test_a_failed_capture_is_one_clear_line_and_the_same_training(monkeypatch, capsys):
    run = create_run(**base)
    called, _ = fitted(run, 'call', monkeypatch)
    def wrong(step): # as a recording that does something else
        for _ in range(3): step()
        raise CaptureFailed('the replayed steps differ by 0.5, repeated ones by 0')
    def broken(step):
        start = step.save()
        try: return wrong(step)
        finally: step.restore(start)
    monkeypatch.setattr(capture, '_how', lambda device: 'graph')
    monkeypatch.setattr(Step, 'proven', broken)
    capsys.readouterr()
    learn, _ = fitted(run, '', monkeypatch)
    lines = [l for l in capsys.readouterr().out.splitlines() if 'captured' in l]
    assert lines == ['The training step is not captured (the replayed steps differ by 0.5, repeated ones by 0): each step is '
                     'launched from Python, which is slower.']
    assert learn.layout['captured'] is False and 'differ by 0.5' in learn.layout['not_captured']
    assert gap(called.model, learn.model) == 0


def test_a_loss_that_is_nan_stops_and_names_its_step(monkeypatch):
    run = create_run(**(base | dict(lr=1e9, schedule='flat', opt='sgd', epochs=3)))
    def step_of(how):
        with pytest.raises(Diverged) as e: fitted(run, how, monkeypatch)
        return str(e.value)
    assert step_of('call') == step_of('0')


def test_killed_after_an_epoch_it_ends_with_the_same_bits(tmp_path, monkeypatch):
    monkeypatch.setenv('IMGSTUDY_CAPTURE', 'call')
    run = create_run(**(base | dict(epochs=4, augment='basic', ema=.9, model='cnn_custom')))
    whole = train(run, root=tmp_path/'whole')
    kill_after(2, monkeypatch, lambda: train(run, root=tmp_path/'cut'))
    cut = train(run, root=tmp_path/'cut')
    assert cut.info['cost']['resumed'] == [2]
    a, b = (load_file(r.path/'weights.safetensors') for r in (whole, cut))
    assert all(torch.equal(a[k], b[k]) for k in a)


def test_a_record_says_whether_it_was_captured(tmp_path, monkeypatch):
    monkeypatch.setenv('IMGSTUDY_CAPTURE', 'call')
    runs = [create_run(**(base | dict(seed=s))) for s in (0, 1)]
    alone = train(runs[0], root=tmp_path)
    stacked = train_stacked(runs, root=tmp_path/'stacked')
    for r in (alone, *stacked): assert r.info['model']['captured'] is False and r.info['model']['not_captured']
