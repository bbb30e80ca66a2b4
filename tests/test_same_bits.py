"A step in fewer operations: the same bits as by the plain functions below, which say what is meant, one operation after the other."
import numpy as np, pytest, torch
from contextlib import contextmanager
from torch.nn import functional as F
from imgstudy.core import seed_everything
from imgstudy.data import augment as A
from imgstudy.data.augment import BRIGHTNESS, CONTRAST, RAND_OPS, SATURATION, augment_levels, blur_each, grey_each
from imgstudy.data.loaders import RowDL, create_dls
from imgstudy.data.split import load_data, part_of
from imgstudy.study.create import create_run
from imgstudy.training import stacked
from imgstudy.training.learner import create_learner
from imgstudy.training.stacked import Member, StackedHistory, StackedSchedules, StackedStep, stack_learners
from imgstudy.training.step import Step, views
from recorded import Recording

each = lambda v: v[:, None, None, None]

# ---- the plain functions: augmentation

def uniform(x, low, high, shape=()): return torch.rand(len(x), *shape, device=x.device)*(high - low) + low

def affine(x, m, mode='bilinear', pad='zeros'):
    "Read the pixel for (u, v) at (a u + b v + s, c u + d v + t); m: [n, 6]."
    h, w = x.shape[-2:]
    u, v = torch.arange(w) + .5 - w/2, torch.arange(h)[:, None] + .5 - h/2
    a, b, s, c, d, t = m[..., None, None].unbind(1)
    grid = torch.stack([(a*u + b*v + s)*2/w, (c*u + d*v + t)*2/h], -1)
    return F.grid_sample(x, grid, mode, pad, align_corners=False)

def turn(x, angle, mode='nearest', pad='zeros'):
    cos, sin = angle.deg2rad().cos(), angle.deg2rad().sin()
    zero = torch.zeros_like(cos)
    return affine(x, torch.stack([cos, -sin, zero, sin, cos, zero], 1), mode, pad)

def enlarge(x, top, left, h, w, do):
    H, W = x.shape[-2:]
    zero, m = torch.zeros_like(h), [w/W, left + w/2 - W/2, h/H, top + h/2 - H/2]
    return torch.where(each(do), affine(x, torch.stack([m[0], zero, m[1], zero, *m[2:]], 1), pad='border'), x)

def adjust(x, op, f):
    grey, (contrast, saturation) = grey_each(x), [each((op == o)*(1 - f)) for o in (CONTRAST, SATURATION)]
    other = torch.addcmul(contrast*grey.mean((-2, -1), keepdim=True), saturation, grey)
    return torch.addcmul(other, x, each(f)).clamp_(0, 1)

def jitter(x, order, factors):
    for op in order.unbind(1): x = adjust(x, op, factors.gather(1, op[:, None])[:, 0])
    return x

def drawn(op, name): return op == RAND_OPS.index(name)

def colour(x, op, level):
    grey, o = grey_each(x), each(op)
    other = torch.where(o == CONTRAST, grey.mean((-2, -1), keepdim=True), grey).masked_fill(o == BRIGHTNESS, 0)
    other = torch.where(each(drawn(op, 'sharpness')), blur_each(x), other)
    return torch.lerp(other, x, each(1 + .9*level)).clamp(0, 1)

def move(x, op, level):
    h, w = x.shape[-2:]
    angle, shear_x, shear_y, right, down = (drawn(op, o)*level for o in RAND_OPS[4:9])
    cos, sin = (30*angle).deg2rad().cos(), (30*angle).deg2rad().sin()
    s, t = -(150/331*w*right).trunc(), -(150/331*h*down).trunc()
    return affine(x, torch.stack([cos, .3*shear_x - sin, s, sin + .3*shear_y, cos, t], 1))

def posterize(x, level):
    steps = each((8 - 4*level.abs()).round().exp2())
    return torch.minimum((x*steps).floor(), steps - 1)/steps

def solarize(x, level): return torch.where(x >= 1 - each(level.abs()), 1 - x, x)

def autocontrast(x, level):
    low, high = x.amin((-2, -1), keepdim=True), x.amax((-2, -1), keepdim=True)
    return torch.where(high > low, (x - low)/(high - low), x)

def one_op(x, op, level):
    out = torch.where(each(op < 4), colour(x, op, level), x)
    out = torch.where(each((op >= 4) & (op < 9)), move(x, op, level), out)
    for name, f in dict(posterize=posterize, solarize=solarize, autocontrast=autocontrast).items():
        out = torch.where(each(drawn(op, name)), f(x, level), out)
    return out

def rand_augment(x, ops, levels):
    for op, level in zip(ops.unbind(1), levels.unbind(1)): x = one_op(x, op, level)
    return x

# ---- the plain functions: random numbers, as methods of the transforms

def draw_flip(self, x): return uniform(x, 0, 1) < self.p,
def draw_sharpen(self, x): return 1. + (uniform(x, 0, 1) < self.p)*(self.factor - 1),
def draw_jitter(self, x):
    factors = torch.stack([uniform(x, 1 - l, 1 + l) for l in self.limits], 1)
    return uniform(x, 0, 1, (3,)).argsort(1), factors

def boxes(x, scale, ratio, spare=0, tries=10):
    H, W = x.shape[-2:]
    area, aspect = uniform(x, *scale, (tries,))*H*W, uniform(x, *map(A.math.log, ratio), (tries,)).exp()
    h, w = (area*aspect).sqrt().round(), (area/aspect).sqrt().round()
    fits = (h <= H - spare) & (w <= W - spare)
    first = fits.int().argmax(1, keepdim=True)
    h, w = h.gather(1, first)[:, 0], w.gather(1, first)[:, 0]
    return uniform(x, 0, H + 1 - h).floor(), uniform(x, 0, W + 1 - w).floor(), h, w, fits.any(1)

def draw_crop(self, x): return boxes(x, self.scale, self.ratio)
def draw_erasing(self, x):
    *box, fits = boxes(x, self.scale, self.ratio, spare=1)
    return *box, fits & (uniform(x, 0, 1) < self.p)

draws = {A.RandomFlip: draw_flip, A.RandomSharpen: draw_sharpen, A.RandomJitter: draw_jitter, A.BatchResizedCrop: draw_crop, A.BatchErasing: draw_erasing}
applies = {A.RandomJitter: staticmethod(jitter), A.BatchResizedCrop: staticmethod(enlarge), A.RandAugment: lambda self, *args: rand_augment(*args),
           A.BatchRotation: lambda self, x, angle: turn(x, angle, self.mode, self.pad)}

# ---- the plain functions: the step

@contextmanager
def plain_gradients(self):
    "Let autograd add the gradients to those of the chunks."
    for c in self.active:
        for p, g in zip(c.params, views(c.grad, c.params)): p.grad = g
    try: yield
    finally:
        for c in self.active:
            for p in c.params: p.grad = None

def plain_step(self):
    for c in self.active: c.grad.zero_()
    x, y = self.batch()
    pred = self.learn.model(x)
    loss = self.backward(pred, y)
    self.update()
    self.note(loss, pred.detach(), y)
    self.last = x, y, pred.detach(), loss

@torch.no_grad()
def plain_note(self, loss, pred, y):
    here = torch.arange(self.n, device=loss.device)[:, None] == self.pos
    torch.where(here, loss, self.losses, out=self.losses)
    self.hits.add_((pred.argmax(-1) == y).sum(-1))
    self.pos.add_(1)

def plainly(monkeypatch):
    "Let a step be done by the plain functions."
    for cls, f in draws.items(): monkeypatch.setattr(cls, 'draw', f)
    for cls, f in applies.items(): monkeypatch.setattr(cls, 'apply', f)
    for k, f in dict(__call__=plain_step, gradients=plain_gradients, note=plain_note).items(): monkeypatch.setattr(Step, k, f)

# ---- images

sizes = [(28, 28), (32, 32), (33, 33), (64, 64), (96, 96), (50, 41)]
formats = [torch.contiguous_format, torch.channels_last]

@pytest.fixture(params=[(s, f) for s in sizes for f in formats], ids=lambda p: f'{p[0][0]}x{p[0][1]}-{str(p[1])[6:]}')
def images(request):
    (h, w), form = request.param
    seed_everything(h)
    return (torch.randint(0, 256, (130, 3, h, w), dtype=torch.uint8).float()/255).contiguous(memory_format=form)

def same(a, b): return torch.equal(a, b) and a.stride() == b.stride()

@pytest.mark.parametrize('limits', [(.2, .2, .2), (.1, .2, .9)])
def test_jittered_images(images, limits):
    params = A.RandomJitter(*limits).draw(images)
    assert same(A.jitter_each(images, *params), jitter(images, *params))

@pytest.mark.parametrize('pad', ['zeros', 'border', 'reflection'])
@pytest.mark.parametrize('mode', ['nearest', 'bilinear'])
def test_turned_images(images, mode, pad):
    tfm = A.BatchRotation(40, mode, pad)
    angle, = tfm.draw(images)
    angle[:3] = torch.tensor([0., 40., -40.])
    assert same(tfm.apply(images, angle), turn(images, angle, mode, pad))

def test_enlarged_images(images):
    params = A.BatchResizedCrop().draw(images)
    assert same(A.enlarge_each(images, *params), enlarge(images, *params))

@pytest.mark.parametrize('n_ops, magnitude', [(2, 5), (1, 9), (3, 30)])
def test_images_after_randaugment(images, n_ops, magnitude):
    tfm = A.RandAugment(n_ops, magnitude)
    ops, levels = tfm.draw(images)
    ops[:len(RAND_OPS), 0] = torch.arange(len(RAND_OPS)) # each at least once
    assert same(tfm.apply(images, ops, levels), rand_augment(images, ops, levels))
    assert same(A.rand_op(images, ops[:, 0], levels[:, 0]), one_op(images, ops[:, 0], levels[:, 0]))

made = [A.RandomFlip(), A.RandomFlip(.1), A.RandomJitter(.2, .2, .2), A.RandomJitter(.1, .1, .1), A.RandomJitter(.1, .2, .3), A.RandomSharpen(2, .1),
        A.BatchErasing(), A.BatchResizedCrop((.35, 1))]

@pytest.mark.parametrize('tfm', made, ids=lambda t: f'{type(t).__name__}{[*t.settings.values()]}')
def test_drawn_numbers_and_the_generator_after_them(tfm):
    x, drawn_by = torch.empty(1).expand(4000, 3, 32, 32), []
    for f in (type(tfm).draw, draws[type(tfm)]):
        torch.manual_seed(3)
        drawn_by.append([*f(tfm, x), torch.get_rng_state()])
    for a, b in zip(*drawn_by, strict=True): assert torch.equal(a, b) and a.dtype == b.dtype

# ---- trainings

base = dict(dataset='digits', model='lenet5', precision='bf16', subset=112, bs=32, size=32, epochs=1)
loaded = {}

def learner_of(run):
    if part_of(run) not in loaded: loaded[part_of(run)] = load_data(run)
    seed_everything(run.seed)
    return create_learner(run, create_dls(run, loaded[part_of(run)]))

def step_of(options, members=0):
    "A step before its epoch, of one training or of a stack."
    runs = [create_run(**base | options | dict(seed=s)) for s in range(members or 1)]
    learn = stack_learners([learner_of(r) for r in runs], [r.recipe for r in runs]) if members else learner_of(runs[0])
    learn.epoch, learn.n_epoch = 0, 1
    learn.create_opt()
    learn.opt.set_hypers(lr=.003)
    if members: learn.add_cb(StackedSchedules([r.recipe for r in runs])).stacked_schedules.before_epoch()
    learn.model.train()
    step = (StackedStep if members else Step)(learn)
    step.begin()
    return step

def after_epoch(options, members):
    seed_everything(7)
    step = step_of(options, members)
    with step.gradients():
        for _ in range(step.n): step()
    return [t.detach().clone() for t in step.tensors()] + [torch.get_rng_state()]

cases = [(dict(augment=level), m) for level in augment_levels for m in (0, 3)] + [(o, m) for m in (0, 1, 3) for o in (
    dict(augment='basic', opt='adam'), dict(augment='standard', opt='sgd', nesterov=True, lr=.01), dict(clip=.1), dict(model='cnn3', size=28, dropout=.2))]
cases += [(dict(model='vit'), 0), (dict(model='resnet9', augment='standard'), 0), (dict(model='convnext', layer_decay=.7), 0)]

@pytest.mark.parametrize('options, members', cases, ids=str)
def test_weights_moments_and_losses_after_an_epoch(options, members, monkeypatch):
    new = after_epoch(options, members)
    plainly(monkeypatch)
    for a, b in zip(new, after_epoch(options, members), strict=True): assert torch.equal(a, b) and a.isfinite().all()
