"What is measured before a training: once for each kind, from the same images, and within a twentieth of the time that is left."
import math, time
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from types import SimpleNamespace
import pytest, torch
from fastai.basics import Callback
from imgstudy.records.record import read_record
from imgstudy.runs import run_id
from imgstudy.study.create import create_run
from imgstudy.training import train_stacked as module
from imgstudy.training.step import Step
from imgstudy.training.train_stacked import Enough, Measuring, best_stack, best_streams, choose_stack, kept_gain, measuring, stack_layout, stacking_gain, streams_gain, streams_rate

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


@pytest.mark.parametrize('left', [.01, 1., -5.])
def test_without_time_each_is_trained_alone_or_on_a_usual_number_of_streams(left, monkeypatch):
    "Of what is left a twentieth may be spent. A stack changes the results in their last digits, streams do not."
    monkeypatch.setenv('IMGSTUDY_DEADLINE', str(time.time() + left))
    start = time.time()
    assert best_streams(create_run(**quick)) == 4
    assert [choose_stack(create_run(**quick), most) for most in (6, 50)] == [(1, 'there was no time to measure whether they are faster as one')]*2
    assert time.time() - start < 5


@pytest.mark.parametrize('left', [None, -5.])
def test_a_kept_choice_is_taken_with_and_without_time(left, monkeypatch):
    run, gains = create_run(**quick), {8: 3., 16: 5., 20: 5.1, 3: .9, 2: 1.7, 4: 1.8}
    with monkeypatch.context() as m:
        for f in ('stacking_gain', 'streams_gain'): m.setattr(module, f, lambda run, n: gains[n])
        measured = best_stack(run, 20), choose_stack(run, 3), best_streams(run)
    for f in ('stacking_gain', 'streams_gain'): monkeypatch.setattr(module, f, lambda run, n: 1/0)
    if left: monkeypatch.setenv('IMGSTUDY_DEADLINE', str(time.time() + left))
    assert (best_stack(run, 20), choose_stack(run, 3), best_streams(run)) == measured
    assert measured == (16, (1, 'as one they would be only 0.90 times as fast'), 2)


def fails(error):
    def gain(run, n): raise error
    return gain


@pytest.mark.parametrize('gain, why', [
    (lambda run, n: .432, 'as one they would be only 0.43 times as fast'), (lambda run, n: 1.08, 'as one they would be only 1.08 times as fast'),
    (lambda run, n: math.nan, 'too few steps to measure'), (fails(Enough('late')), 'no time to measure'),
    (fails(torch.OutOfMemoryError('CUDA out of memory')), 'memory does not suffice for 5 as one')])
def test_why_runs_are_trained_alone_is_true(gain, why, tmp_path, monkeypatch):
    from imgstudy.sweep import sweep
    runs = [create_run(**quick | dict(seed=s)) for s in range(5)]
    assert why in choose_stack(runs[0], 5, gain)[1]
    monkeypatch.setattr(sweep, 'choose_stack', lambda run, most: choose_stack(run, most, gain))
    state, reason = sweep.work_stacked(runs, tmp_path, 'auto')
    assert state == 'alone' and why in reason and 'nan' not in reason
    with pytest.raises(ZeroDivisionError): choose_stack(None, 5, fails(ZeroDivisionError()))


def test_runs_of_too_few_steps_are_said_to_be_so(tmp_path, monkeypatch):
    from imgstudy.sweep.sweep import work_stacked
    monkeypatch.setenv('IMGSTUDY_CAPTURE', 'call')
    runs = [create_run(**quick | dict(bs=10, subset=50, seed=s)) for s in range(3)]
    assert work_stacked(runs, tmp_path, 'auto') == ('alone', 'they have too few steps to measure whether they are faster as one')


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


def test_what_another_job_keeps_meanwhile_is_not_lost_and_the_first_choice_counts(monkeypatch):
    run, gains = create_run(**quick), iter([2., 3., 4.])
    def gain(run, n): # another job measures the same, and something else, while this one measures
        mine = next(gains)
        if mine == 2.: kept_gain(run, n), kept_gain(run, 4)
        return mine
    monkeypatch.setattr(module, 'stacking_gain', gain)
    assert [kept_gain(run, 8), kept_gain(run, 4), kept_gain(run, 8)] == [3., 4., 3.]


def test_many_jobs_keep_all_that_they_measure(monkeypatch):
    run, n = create_run(**quick), 24
    monkeypatch.setattr(module, 'stacking_gain', lambda run, k: time.sleep(.02) or float(k))
    with ThreadPoolExecutor(8) as pool: assert list(pool.map(partial(kept_gain, run), range(n))) == [*range(n)]
    monkeypatch.setattr(module, 'stacking_gain', lambda run, k: 1/0)
    assert [kept_gain(run, k) for k in range(n)] == [*range(n)]


@pytest.mark.parametrize('text', ['', '{"a": 1', '[]'])
def test_a_damaged_file_of_choices_is_measured_anew(text, tmp_path, monkeypatch):
    monkeypatch.setattr(module, 'stacking_gain', lambda run, n: 2.)
    (tmp_path/'cache').mkdir()
    (tmp_path/'cache'/'stacking.json').write_text(text)
    assert kept_gain(create_run(**quick), 8) == 2.
    monkeypatch.setattr(module, 'stacking_gain', lambda run, n: 1/0)
    assert kept_gain(create_run(**quick), 8) == 2.


def test_all_kinds_of_a_sweep_share_the_time(monkeypatch):
    monkeypatch.setenv('IMGSTUDY_DEADLINE', str(time.time() + 100))
    with measuring() as all:
        with measuring() as one: assert one is all
        assert 4 < all.until - time.time() <= 5
    with measuring() as again: assert again is not all


@pytest.mark.parametrize('spent, allowed', [((20, 40), (50, 30, 0)), ((0, 0, 0), (50,)*4), ((60, 5), (50, 0, 0)), ((10,)*7, (50, 40, 30, 20, 10, 0, 0, 0))], ids=str)
def test_blocks_one_after_the_other_share_a_twentieth(spent, allowed, monkeypatch):
    "Of 1,000 s 50 may be spent in all, also if a measurement ends late; a block in another does not count twice."
    now = [time.time()]
    monkeypatch.setattr(module, 'time', SimpleNamespace(time=lambda: now[0]))
    monkeypatch.setenv('IMGSTUDY_DEADLINE', str(now[0] + 1000))
    seen = []
    for seconds in (*spent, 0):
        with measuring() as block, measuring():
            seen.append(max(0, round(block.until - now[0])))
            now[0] += seconds
    assert seen == [*allowed]
    monkeypatch.setenv('IMGSTUDY_DEADLINE', str(now[0] + 2000)) # another sweep
    with measuring() as block: assert round(block.until - now[0]) == 100


def test_a_block_takes_no_more_than_a_twentieth_of_what_is_left(monkeypatch):
    now = [time.time()]
    monkeypatch.setattr(module, 'time', SimpleNamespace(time=lambda: now[0]))
    monkeypatch.setenv('IMGSTUDY_DEADLINE', str(now[0] + 1000))
    with measuring(): now[0] += 10
    now[0] += 790 # of training
    with measuring() as block: assert round(block.until - now[0]) == 10


def test_what_an_error_cuts_short_was_spent_too(monkeypatch):
    now = [time.time()]
    monkeypatch.setattr(module, 'time', SimpleNamespace(time=lambda: now[0]))
    monkeypatch.setenv('IMGSTUDY_DEADLINE', str(now[0] + 1000))
    with pytest.raises(ZeroDivisionError), measuring(): now[0] += 45; 1/0
    with measuring() as block: assert round(block.until - now[0]) == 5


def test_a_choice_is_not_measured_when_others_have_spent_the_time(monkeypatch):
    monkeypatch.setenv('IMGSTUDY_DEADLINE', str(time.time() + 10))
    with measuring(): time.sleep(.6)
    start = time.time()
    assert choose_stack(create_run(**quick), 8)[1] == 'there was no time to measure whether they are faster as one'
    assert time.time() - start < 3


@pytest.fixture
def card(monkeypatch):
    monkeypatch.setattr(torch.cuda, 'is_available', lambda: True)
    monkeypatch.setattr(module, 'environment', lambda: dict(threads=1, device='cuda'))
    monkeypatch.setattr(module, 'device_name', lambda here: 'a card')


def test_a_layout_that_was_not_measured_is_the_plain_one(card, monkeypatch):
    monkeypatch.setenv('IMGSTUDY_DEADLINE', str(time.time() - 5))
    assert stack_layout(create_run(**quick), 4) == dict(channels_last=False, valid_apart=False, not_measured=['channels_last', 'valid_apart'])
    assert math.isinf(Measuring().until)


@pytest.mark.parametrize('known', [(1.5, None), (None, 1.5), (1.5, .9), (math.nan, 1.5)])
def test_each_kept_part_of_a_layout_counts_without_time(known, card, monkeypatch):
    run, names = create_run(**quick), dict(layout_gain='channels_last', apart_gain='valid_apart')
    def gain(value):
        if value is None: raise Enough('no time')
        return value
    for f, value in zip(names, known): monkeypatch.setattr(module, f, lambda run, n, value=value: gain(value))
    first = stack_layout(run, 4)
    missing = [k for k, v in zip(names.values(), known) if v is None or math.isnan(v)]
    assert first == {k: v == 1.5 for k, v in zip(names.values(), known)} | (dict(not_measured=missing) if missing else {})
    monkeypatch.setenv('IMGSTUDY_DEADLINE', str(time.time() - 5))
    for f in names: monkeypatch.setattr(module, f, fails(Enough('no time')))
    assert stack_layout(run, 4) == first


@pytest.mark.parametrize('last', [False, True])
def test_without_memory_for_a_layout_the_plain_one_is_taken(last, card, monkeypatch):
    "The training itself is done in halves if it does not fit either."
    monkeypatch.setattr(module, 'apart_gain', lambda run, n: 1.)
    def stack(run, n, channels_last):
        if channels_last == last: raise torch.OutOfMemoryError('CUDA out of memory')
    monkeypatch.setattr(module, '_some_stack', stack)
    monkeypatch.setattr(module, '_seconds_a_step', lambda fit: 1.)
    assert stack_layout(create_run(**quick), 4) == dict(channels_last=False, valid_apart=False, not_measured=['channels_last'])


def test_members_that_are_not_validated_together_for_lack_of_memory_are_one_by_one(card, monkeypatch):
    seconds = module._forward_seconds
    def full(model, x):
        if not getattr(model, 'apart', False): raise torch.OutOfMemoryError('CUDA out of memory')
        return seconds(model, x)
    monkeypatch.setattr(module, '_forward_seconds', full)
    monkeypatch.setattr(module, 'layout_gain', lambda run, n: 1.)
    monkeypatch.setattr(torch.cuda, 'is_available', lambda: False)
    gain = module.apart_gain(create_run(**quick), 2)
    monkeypatch.setattr(module, 'apart_gain', lambda run, n: gain)
    monkeypatch.setattr(torch.cuda, 'is_available', lambda: True)
    assert math.isinf(gain)
    assert stack_layout(create_run(**quick), 2) == dict(channels_last=False, valid_apart=True)
    monkeypatch.setattr(module, 'apart_gain', lambda run, n: 1.) # with more room it is measured again
    assert stack_layout(create_run(**quick), 2) == dict(channels_last=False, valid_apart=False)


@pytest.mark.parametrize('other, again', [(dict(lr=.002), 0), (dict(seed=3), 0), (dict(wd=.1), 0), (dict(augment='standard'), 1), (dict(opt='sgd'), 1),
                                          (dict(mixup=.2), 1), (dict(ema=.99), 1), (dict(clip=1.), 1), (dict(bs=16), 1), (dict(torch_compile=True), 1)], ids=str)
def test_a_gain_is_measured_anew_for_what_changes_a_step(other, again, card, monkeypatch):
    asked = []
    monkeypatch.setattr(module, 'stacking_gain', lambda run, n: (asked.append(run), 2.)[1])
    for options in (dict(), other): kept_gain(create_run(**quick | options), 4)
    assert len(asked) == 1 + again


def test_a_gain_of_captured_steps_is_not_that_of_called_ones(card, monkeypatch):
    asked = []
    monkeypatch.setattr(module, 'stacking_gain', lambda run, n: (asked.append(run), 2.)[1])
    for how in ('', 'call', 'off', 'on', '0'):
        monkeypatch.setenv('IMGSTUDY_CAPTURE', how)
        kept_gain(create_run(**quick), 4)
    assert len(asked) == 2


def test_a_record_says_what_was_not_measured_also_after_a_pause(tmp_path, monkeypatch):
    from kills import Kill, Killed
    from imgstudy.training.checkpoint import Checkpoint
    runs = [create_run(**quick | dict(seed=s, subset=100)) for s in range(2)]
    plain = dict(channels_last=False, valid_apart=False)
    monkeypatch.setattr(module, 'stack_layout', lambda run, n: plain | dict(not_measured=['channels_last', 'valid_apart']))
    with monkeypatch.context() as m:
        m.setattr(Checkpoint, 'every', 0)
        m.setattr(module, 'event_cbs', lambda *args, **kwargs: [Kill(1)])
        with pytest.raises(Killed): module.train_stacked(runs, root=tmp_path)
    monkeypatch.setattr(module, 'stack_layout', lambda run, n: plain)
    for r in module.train_stacked(runs, root=tmp_path):
        assert r.info['cost']['resumed'] == [1] and r.info['model']['not_measured'] == ['channels_last', 'valid_apart']


@pytest.mark.parametrize('left', [2, 1])
def test_a_stack_that_was_interrupted_goes_on_without_a_measurement(left, tmp_path, monkeypatch):
    from kills import Kill, Killed
    from imgstudy.sweep import sweep
    from imgstudy.training.checkpoint import Checkpoint
    runs = [create_run(**quick | dict(seed=s, subset=100)) for s in range(2)]
    with monkeypatch.context() as m:
        m.setattr(Checkpoint, 'every', 0)
        m.setattr(module, 'event_cbs', lambda *args, **kwargs: [Kill(1)])
        with pytest.raises(Killed): module.train_stacked(runs, root=tmp_path)
    for name in ('best_stack', 'choose_stack'): monkeypatch.setattr(sweep, name, fails(AssertionError('measured')), raising=False)
    assert sweep.work_stacked(runs[-left:], tmp_path, 'auto') == ('done', '')
    for r in runs[-left:]: assert read_record(tmp_path/run_id(r)).info['cost']['resumed'] == [1]


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


@pytest.mark.parametrize('n', [1, 3, 10, 15, 16, 100])
def test_a_measurement_ends_after_a_few_steps_whatever_an_epoch_has(steps, n):
    for k, gain in enumerate((lambda run: stacking_gain(run, 2), lambda run: module.layout_gain(run, 2))):
        steps[0] = 0
        assert gain(short_epochs(n)) > 0 and 2*16 <= steps[0] <= 2*21, steps


@pytest.mark.parametrize('n, epochs', [(1, 15), (3, 5), (5, 3), (15, 1)])
def test_a_training_of_too_few_steps_is_not_done_to_measure_it(steps, n, epochs):
    run = short_epochs(n, epochs)
    assert math.isnan(module.alone_seconds(run)) and math.isnan(stacking_gain(run, 2)) and math.isnan(module.layout_gain(run, 2))
    assert steps == [0]


@pytest.fixture(params=['call', '0'])
def made_up_clock(request, monkeypatch):
    "A step takes a second, whether an engine or fastai's loop does it, and an image of the validation a thousand."
    monkeypatch.setenv('IMGSTUDY_CAPTURE', request.param)
    now, real = [0.], module.create_learner
    def tick(m, x): now[0] += 1. if m.training else 1000.*len(x[0])
    tick.__module__ = 'imgstudy.test' # another hook would keep the engine from its work
    def learner(*args):
        (learn := real(*args)).model.register_forward_pre_hook(tick)
        return learn
    monkeypatch.setattr(module, 'create_learner', learner)
    monkeypatch.setattr(module, 'time', SimpleNamespace(time=time.time, perf_counter=lambda: now[0]))
    return now


@pytest.mark.parametrize('n', [1, 3, 10, 15, 16])
def test_only_the_time_of_steps_is_counted_and_nothing_is_validated(n, made_up_clock):
    assert module.alone_seconds(short_epochs(n)) == 1. and made_up_clock[0] <= 21


@pytest.mark.parametrize('n', [1, 3, 7, 8, 17])
def test_streams_are_measured_over_as_many_epochs_as_it_takes(n, made_up_clock):
    "A step is ten images and a second, beside another training as alone."
    assert [streams_rate(short_epochs(n), k) for k in (1, 2)] == [10., 10.]
    assert made_up_clock[0] <= 3*(8*(n//8 or n) + 1) # no image was validated; one batch tells which weights get a gradient


@pytest.mark.parametrize('n, epochs', [(1, 6), (3, 6), (7, 6)])
def test_streams_are_not_measured_by_trainings_of_too_few_steps(n, epochs, steps):
    assert math.isnan(streams_rate(short_epochs(n, epochs))) and steps == [0]
    assert not math.isnan(streams_rate(short_epochs(n, epochs + 1)))


@pytest.mark.parametrize('how', ['call', '0'])
def test_the_limit_is_looked_at_in_epochs_of_fewer_steps_than_a_portion(how, monkeypatch):
    "A training of 100 epochs of 2 steps, in the first of which the time ends."
    monkeypatch.setenv('IMGSTUDY_CAPTURE', how)
    seen = []
    class Ends(Callback):
        order = 95
        def after_train(self): seen.append(self.train_iter)
        def after_epoch(self): shared.until = 0.
    with measuring() as shared:
        recipe, learner = module._to_time(short_epochs(2, 100))
        with pytest.raises(Enough): module._seconds_a_step(lambda cbs: module.fit(learner(0), recipe, lines=1, cbs=[*cbs, Ends()]))
    assert max(seen) <= 4


def test_the_limit_is_looked_at_between_forward_passes():
    "As of the validation, of which two kinds are compared."
    with measuring() as shared:
        passes = []
        def slow(x):
            passes.append(x)
            shared.until = 0.
        with pytest.raises(Enough): module._forward_seconds(slow, torch.zeros(1))
    assert len(passes) == 1
