"What is measured before a training: once for each kind, from the same images, and within a twentieth of the time that is left."
import math, time
from types import SimpleNamespace
import pytest, torch
from fastai.basics import Callback
from imgstudy.study.create import create_run
from imgstudy.training import train_stacked as module
from imgstudy.training.step import Step
from imgstudy.training.train_stacked import Enough, Measuring, best_stack, best_streams, kept_gain, measuring, stack_layout, stacking_gain, streams_gain, streams_rate

quick = dict(dataset='digits', model='lenet5', bs=32, augment='none', epochs=2, precision='fp32')


@pytest.fixture(autouse=True)
def nothing_kept(tmp_path, monkeypatch):
    monkeypatch.setenv('IMGSTUDY_CACHE', str(tmp_path/'cache'))
    monkeypatch.delenv('IMGSTUDY_DEADLINE', raising=False)


@pytest.fixture
def counts(monkeypatch):
    "How often images are opened, and what is timed alone."
    from collections import Counter
    seen, make, rate, alone = Counter(), module.create_dls, streams_rate, module.alone_seconds
    monkeypatch.setattr(module, 'create_dls', lambda *args, **kwargs: (seen.update(['images']), make(*args, **kwargs))[1])
    monkeypatch.setattr(module, 'streams_rate', lambda run, n=1, **kwargs: (seen.update([f'{n} on streams']), rate(run, n, **kwargs))[1])
    monkeypatch.setattr(module, 'alone_seconds', lambda run, n=1: (seen.update(['alone']), alone(run, n))[1])
    return seen


def test_streams_are_measured_from_the_same_images_and_alone_once(counts, monkeypatch):
    with measuring():
        gains = [streams_gain(create_run(**quick), n) for n in (2, 4)]
    assert all(g > 0 for g in gains) and counts == {'images': 1, '1 on streams': 1, '2 on streams': 1, '4 on streams': 1}


def test_stacks_are_measured_from_the_same_images_and_alone_once(counts):
    with measuring():
        gains = [stacking_gain(create_run(**quick), n) for n in (2, 3)]
    assert all(g > 0 for g in gains) and counts == {'images': 1, 'alone': 1}


def test_each_training_on_a_stream_has_an_order_of_its_own_and_shared_images():
    run = create_run(**quick)
    recipe, learner = module._to_time(run)
    a, b = (learner(k, apart=True).dls.train for k in range(2))
    assert a.on_device() is b.on_device()
    assert not torch.equal(a.epoch()[0], b.epoch()[0])


@pytest.mark.parametrize('left, usual', [(.01, 4), (1., 4), (-5., 4)])
def test_without_time_the_usual_number_is_taken(left, usual, monkeypatch):
    "Of what is left a twentieth may be spent."
    monkeypatch.setenv('IMGSTUDY_DEADLINE', str(time.time() + left))
    start = time.time()
    assert best_streams(create_run(**quick)) == usual and best_stack(create_run(**quick), 6) == 6 and best_stack(create_run(**quick), 50) == 8
    assert time.time() - start < 5


def test_time_that_runs_out_while_it_is_measured_ends_the_measurement(monkeypatch):
    "Of a training that would take minutes."
    run = create_run(**quick | dict(model='resnet18_32'))
    shared = Measuring()
    with measuring() as shared:
        shared.images(run)
        shared.until = time.time() + .5
        start = time.time()
        with pytest.raises(Enough): module._seconds_a_step(lambda cbs: module.fit(module._to_time(run)[1](0), run.recipe, lines=1, cbs=cbs))
        assert time.time() - start < 30
        with pytest.raises(Enough): streams_rate(run, 2)


def test_what_was_measured_before_the_time_ran_out_counts(monkeypatch):
    def gain(run, n):
        if n > 16: raise Enough('no time')
        return n/2.
    assert best_stack(None, 100, gain) == 16 and best_stack(None, 100, lambda run, n: 1/0 if n < 8 else .9) == 1


def test_kept_gains_need_no_time(monkeypatch):
    run = create_run(**quick)
    gain = kept_gain(run, 2)
    monkeypatch.setenv('IMGSTUDY_DEADLINE', str(time.time() - 5))
    with measuring(): assert kept_gain(run, 2) == gain


def test_all_kinds_of_a_sweep_share_the_time(monkeypatch):
    monkeypatch.setenv('IMGSTUDY_DEADLINE', str(time.time() + 100))
    with measuring() as all:
        with measuring() as one: assert one is all
        assert 4 < all.until - time.time() <= 5
    with measuring() as again: assert again is not all


def test_a_layout_that_was_not_measured_is_the_plain_one(monkeypatch):
    monkeypatch.setattr(torch.cuda, 'is_available', lambda: True)
    monkeypatch.setenv('IMGSTUDY_DEADLINE', str(time.time() - 5))
    monkeypatch.setattr(module, 'environment', lambda: dict(threads=1))
    monkeypatch.setattr(module, 'device_name', lambda here: 'a card')
    assert stack_layout(create_run(**quick), 4) == dict(channels_last=False, valid_apart=False)
    assert math.isinf(Measuring().until)


@pytest.fixture
def steps(monkeypatch):
    "The number of steps done, of epochs that are not left to fastai's loop."
    done, step = [0], Step.__call__
    monkeypatch.setenv('IMGSTUDY_CAPTURE', 'call')
    def call(self):
        done[0] += 1
        return step(self)
    monkeypatch.setattr(Step, '__call__', call)
    return done

def short_epochs(n, epochs=30): return create_run(**quick | dict(bs=10, subset=10*n, epochs=epochs))


@pytest.mark.parametrize('n', [1, 2, 3, 5, 10, 15, 16, 17, 100])
def test_a_measurement_ends_after_a_few_steps_whatever_an_epoch_has(steps, n):
    for k, gain in enumerate((lambda run: stacking_gain(run, 2), lambda run: module.layout_gain(run, 2))):
        steps[0] = 0
        assert gain(short_epochs(n)) > 0 and 2*16 <= steps[0] <= 2*21, steps


@pytest.mark.parametrize('n, epochs', [(1, 15), (3, 5), (5, 3), (15, 1)])
def test_a_training_of_too_few_steps_is_not_done_to_measure_it(steps, n, epochs):
    run = short_epochs(n, epochs)
    assert math.isnan(module.alone_seconds(run)) and math.isnan(stacking_gain(run, 2)) and math.isnan(module.layout_gain(run, 2))
    assert steps == [0]


@pytest.mark.parametrize('how', ['call', '0'])
@pytest.mark.parametrize('n', [1, 3, 10, 15, 16])
def test_only_the_time_of_steps_is_counted(n, how, monkeypatch):
    "A step takes a second, an image of the validation a thousand."
    monkeypatch.setenv('IMGSTUDY_CAPTURE', how)
    now, forward = [0.], module.create_learner
    def learner(*args):
        learn = forward(*args)
        learn.model.register_forward_pre_hook(lambda m, x: now.__setitem__(0, now[0] + (1. if m.training else 1000.*len(x[0]))))
        return learn
    learner.__module__ = 'imgstudy.test' # so that the hook is taken for one of the library
    monkeypatch.setattr(module, 'create_learner', learner)
    monkeypatch.setattr(module, 'time', SimpleNamespace(time=time.time, perf_counter=lambda: now[0]))
    assert module.alone_seconds(short_epochs(n)) == 1.


class EndsAt(Callback):
    "Let the time be over after the first epoch, or before its validation."
    def __init__(self, shared, event): setattr(self, event, lambda: setattr(shared, 'until', 0.))


@pytest.mark.parametrize('how', ['call', '0'])
@pytest.mark.parametrize('event, most', [('after_epoch', 4), ('before_validate', 2)])
def test_the_limit_is_looked_at_in_short_epochs_and_in_their_validation(how, event, most, monkeypatch):
    "A training of 100 epochs of 2 steps ends with the next epoch, or within the validation."
    monkeypatch.setenv('IMGSTUDY_CAPTURE', how)
    run, seen = short_epochs(2, 100), []
    class Count(Callback):
        order = 95
        def after_train(self): seen.append(self.train_iter)
    with measuring() as shared:
        recipe, learner = module._to_time(run)
        with pytest.raises(Enough):
            module._seconds_a_step(lambda cbs: module.fit(learner(0), recipe, lines=1, cbs=[*cbs, EndsAt(shared, event), Count()]))
    assert max(seen) <= most
