"A step that is recorded once and repeated ends, bit for bit, where called steps end; without a GPU, by a stand-in for its graphs."
import pytest, torch
from fastai.basics import Callback
from imgstudy.core import seed_everything
from imgstudy.data.augment import augment_levels
from imgstudy.data.loaders import create_dls
from imgstudy.data.split import load_data, part_of
from imgstudy.study.create import create_run
from imgstudy.training.fit import fit
from imgstudy.training.learner import create_learner
from imgstudy.training.stacked import fit_stacked, stack_learners
from imgstudy.training.step import Step
from recorded import Recording, Waits, let_record

base = dict(dataset='digits', model='lenet5', epochs=2, precision='fp32', subset=96, bs=32, augment='none', size=28)
loaded = {}


def learner_of(run):
    if part_of(run) not in loaded: loaded[part_of(run)] = load_data(run)
    seed_everything(run.seed)
    return create_learner(run, create_dls(run, loaded[part_of(run)]))


def trained(options, cbs=()):
    "The Learner of a run with `options`, and the networks trained."
    learn = learner_of(run := create_run(**base | options))
    fit(learn, run.recipe, lines=1, cbs=cbs)
    return learn, [learn.model]


def trained_as_one(options):
    "The same for three runs in a stack, which differ in seed and clipping."
    runs = [create_run(**base | dict(seed=s, clip=.5 if s == 1 else None) | options) for s in range(3)]
    learn = stack_learners([learner_of(r) for r in runs], [r.recipe for r in runs])
    return learn, [m.learn.model for m in fit_stacked(learn, lines=1)]


def same_bits(train, options, monkeypatch, recordings=1):
    "Whether recorded steps are taken, and end where called ones end."
    ends = []
    with monkeypatch.context() as m:
        m.setenv('IMGSTUDY_CAPTURE', 'call')
        _, called = train(options)
    with monkeypatch.context() as m:
        made = let_record(m)
        learn, replayed = train(options)
    assert learn.layout['captured'] is True, learn.layout['not_captured']
    assert learn.layout['capture_difference'] == 0 and len(made) == recordings
    for a, b in zip(called, replayed, strict=True):
        for (k, t), u in zip(a.state_dict().items(), b.state_dict().values(), strict=True): assert torch.equal(t, u), k


@pytest.mark.parametrize('level', list(augment_levels))
def test_every_augmentation(level, monkeypatch): same_bits(trained, dict(augment=level), monkeypatch)


@pytest.mark.parametrize('level', list(augment_levels))
def test_every_augmentation_of_a_stack(level, monkeypatch): same_bits(trained_as_one, dict(augment=level), monkeypatch)


@pytest.mark.parametrize('options', [
    dict(opt='adam'), dict(opt='sgd', lr=.01), dict(opt='sgd', nesterov=True, lr=.01), dict(clip=.1), dict(ema=.9), dict(schedule='step'),
    dict(precision='fp16', size=16), dict(model='cnn3', dropout=.2, augment='basic', size=16)], ids=str)
@pytest.mark.parametrize('train', [trained, trained_as_one])
def test_every_recipe(train, options, monkeypatch):
    if train is trained_as_one and 'ema' in options: pytest.skip('is not stacked')
    same_bits(train, options, monkeypatch)


@pytest.mark.parametrize('options, recordings', [(dict(frozen_epochs=1), 2), (dict(tune='gradual', epochs=3), 3), (dict(tune='head'), 1)], ids=str)
def test_layers_that_are_frozen_and_then_trained(options, recordings, monkeypatch):
    same_bits(trained, options | dict(opt='sgd', lr=.01, ema=.9), monkeypatch, recordings)


class Change(Callback):
    "Give a transform another setting before the second epoch."
    def __init__(self, name, k, new): self.tfm, self.k, self.new = name, k, new
    def before_epoch(self):
        tfm = next(f for f in self.dls.train.after_batch.fs if type(f).__name__ == self.tfm)
        if self.epoch == 1: setattr(tfm, self.k, self.new(getattr(tfm, self.k)))


@pytest.mark.parametrize('change', [('BatchErasing', 'scale', lambda v: (.3, .33)), ('BatchErasing', 'p', lambda v: 1.), ('Normalize', 'mean', lambda v: v + 1)])
def test_a_setting_that_changes_is_recorded_anew(change, monkeypatch):
    same_bits(lambda options: trained(options, [Change(*change)]), dict(augment='erasing', epochs=3), monkeypatch, 2)


def test_a_number_that_changes_from_step_to_step_is_noticed(monkeypatch, capsys):
    batch, calls = Step.batch, []
    def counting(step):
        x, y = batch(step)
        calls.append(1)
        return x + .01*len(calls), y
    monkeypatch.setattr(Step, 'batch', counting)
    let_record(monkeypatch)
    learn, _ = trained({})
    assert learn.layout['captured'] is False and 'The training step is not captured (' in capsys.readouterr().out


class Last(Callback):
    "Keeps the last training batch of each epoch, with its predictions and its loss."
    def before_fit(self): self.seen = []
    def after_train(self): self.seen.append((*self.learn.xb, *self.learn.yb, self.learn.pred, self.learn.loss))


def test_after_replays_the_last_batch_is_there(monkeypatch):
    "Also that of an earlier epoch: it is a copy, since each replay writes to the same memory."
    run, seen = create_run(**base | dict(augment='basic')), []
    for let in (lambda m: m.setenv('IMGSTUDY_CAPTURE', 'call'), let_record):
        with monkeypatch.context() as m:
            let(m)
            fit(learner_of(run), run.recipe, lines=1, cbs=[cb := Last()])
            seen.append([t for row in cb.seen for t in row])
    assert len(seen[0]) == 8 and not torch.equal(seen[0][0], seen[0][4])
    assert all(torch.equal(a, b) for a, b in zip(*seen, strict=True))


def test_the_stand_in_takes_numbers_for_constant_and_tensors_for_places():
    x, y, factor = torch.ones(3), torch.zeros(3), [2.]
    with Recording() as recording: y.add_((x*factor[0]).sqrt()[:2].sum())
    first = y.clone()
    x.mul_(4)
    factor[0] = 100.
    recording.replay()
    assert torch.allclose(y, first*3) # with 2, from the new x, added to the old y


def test_the_stand_in_draws_anew():
    x = torch.zeros(5)
    with Recording() as recording: x.copy_(torch.rand(5))
    before = x.clone()
    recording.replay()
    assert not torch.equal(x, before)


@pytest.mark.parametrize('ask', [lambda x: x.sum().item(), lambda x: bool(x.any()), lambda x: x[x > 0], lambda x: x.nonzero(), lambda x: torch.equal(x, x),
                                 lambda x: x.__setitem__(x > 0, 0.), lambda x: x.masked_select(x > 0), lambda x: x.unique()])
def test_the_stand_in_refuses_what_waits_for_the_device(ask):
    with pytest.raises(Waits), Recording(): ask(torch.ones(3))
