"A folder of photographs from anywhere runs no program: contents that Pillow hands to one are named and skipped."
import io, struct
import numpy as np, pytest
from PIL import EpsImagePlugin, Image
from imgstudy.apply import image_files, predict_readable
from imgstudy.core import StudyError
from imgstudy.data.audit import audit_data
from imgstudy.data.duplicates import hash_image
from imgstudy.data.images import StudyImage, check_image, open_raster, open_upright, page_kind
from imgstudy.data.loaders import OpenAny
from imgstudy.data.split import load_data
from imgstudy.predict import Predictor, open_image, predict
from imgstudy.runs import make_run

eps = b'%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\n0 0 9 9 rectfill\nshowpage\n%%EOF\n'
dos = b'\xc5\xd0\xd3\xc6' + struct.pack('<II', 30, len(eps)) + bytes(18) + eps


def iptc():
    "An EPS as the picture of an IPTC envelope: Pillow opens that by itself."
    field = lambda record, tag, data: bytes([0x1c, record, tag]) + struct.pack('>H', len(data)) + data
    head = field(3, 60, b'\1\0') + field(3, 20, b'\0\0\0\x09') + field(3, 30, b'\0\0\0\x09') + field(3, 120, b'\0\0\0\5')
    return head + field(8, 10, eps)


def placeable_wmf():
    head = b'\xd7\xcd\xc6\x9a\0\0' + struct.pack('<4hH', 0, 0, 99, 99, 96) + bytes(4)
    return head + bytes(22 - len(head)) + b'\1\0\x09\0\0\3' + bytes(60)


emf = struct.pack('<II8i', 1, 108, 0, 0, 99, 99, 0, 0, 999, 999) + b' EMF' + bytes(90)
disguised = {'cat.png': (eps, 'EPS'), 'photo.jpg': (dos, 'EPS'), 'scan.jpeg': (b'%PDF-1.7\n1 0 obj\n' + bytes(80), 'PDF'),
             'drawing.png': (placeable_wmf(), 'WMF'), 'picture.png': (emf, 'EMF'), 'page.tif': (b'%!PS\nshowpage\n' + bytes(60), 'PostScript')}


@pytest.fixture
def mark(tmp_path, monkeypatch):
    "What a `gs` on the PATH, Ghostscript's name, leaves behind when it is started."
    bin, mark = tmp_path/'bin', tmp_path/'started'
    bin.mkdir()
    for name in ('gs', 'gswin32c', 'gswin64c'):
        (bin/name).write_text(f'#!/bin/sh\ntouch {mark}\n')
        (bin/name).chmod(0o755)
    monkeypatch.setenv('PATH', f'{bin}:/usr/bin:/bin')
    monkeypatch.setattr(EpsImagePlugin, 'gs_binary', None) # Pillow looks for it once
    return mark


@pytest.fixture
def photos(tmp_path):
    "Sixty photographs in two classes, and the disguised files among them."
    rng = np.random.default_rng(0)
    for c in 'ab':
        (tmp_path/'photos'/c).mkdir(parents=True)
        for i in range(30): Image.fromarray(rng.integers(0, 255, (12, 12, 3), np.uint8)).save(tmp_path/'photos'/c/f'{i}.png')
    for name, (data, _) in disguised.items(): (tmp_path/'photos/a'/name).write_bytes(data)
    return tmp_path/'photos'


@pytest.mark.parametrize('data', [eps, dos, iptc()], ids=['eps', 'dos', 'iptc'])
def test_pillow_alone_starts_the_program(data, mark, tmp_path):
    "Else the tests below would show nothing."
    (tmp_path/'cat.png').write_bytes(data)
    with pytest.raises(Exception): Image.open(tmp_path/'cat.png').load()
    assert mark.exists()


@pytest.mark.parametrize('data', [eps, dos, iptc()], ids=['eps', 'dos', 'iptc'])
@pytest.mark.parametrize('opens', [open_raster, open_upright, StudyImage.create, hash_image, open_image, OpenAny(8),
                                   lambda p: OpenAny(8)(p.read_bytes()), lambda p: open_image(Image.open(p)),
                                   lambda p: OpenAny(8)(Image.open(p)), lambda p: StudyImage.create(io.BytesIO(p.read_bytes()))])
def test_no_opener_starts_it(opens, data, mark, tmp_path):
    (tmp_path/'cat.png').write_bytes(data)
    with pytest.raises((StudyError, OSError)): opens(tmp_path/'cat.png')
    assert not mark.exists()


def test_disguised_files_are_named_and_skipped(mark, photos, capsys):
    for name, (data, kind) in disguised.items():
        assert page_kind(data[:64]) == kind and check_image(photos/'a'/name) == dict(error=f'no image: {kind}')
    data = load_data(make_run(dataset=f'folder:{photos}', model='lenet5'))
    assert len(data.items) == 60 and len(data.skipped) == len(disguised)
    said = capsys.readouterr().out
    assert '6 files are no images' in said and all(f'a/{n} ({kind})' in said for n, (_, kind) in disguised.items())
    assert len(audit_data(f'folder:{photos}').items) == 60 and not mark.exists()


def test_predict_leaves_them_out(mark, photos):
    from torch import nn
    images, others = image_files([str(photos/'a')])
    assert len(images) == 30 and {f.rsplit('/', 1)[1] for f in others} == {*disguised}
    model = nn.Sequential(nn.Flatten(), nn.Linear(3*8*8, 2))
    predictor = Predictor('by-hand', 'photos', model, ['a', 'b'], 8, 'bilinear')
    named = [str(photos/'a/cat.png'), *images[:2]] # by somebody who names it
    table, kept, damaged = predict_readable(named, predictor)
    assert len(table) == 2 and 'EPS, whatever its name, is no raster image' in damaged[0] and not mark.exists()
    with pytest.raises(StudyError, match='EPS'): predict(named[0], predictor)


def test_ordinary_photographs_open_as_before(mark, tmp_path):
    picture = Image.effect_noise((32, 24), 50).convert('RGB')
    for ext in ('jpg', 'png', 'webp', 'gif', 'bmp', 'tif', 'ppm', 'jp2', 'avif', 'mpo', 'icns', 'ico', 'tga', 'pcx', 'sgi', 'dds', 'qoi'):
        try: (picture.resize((32, 32)) if ext in ('icns', 'ico') else picture).save(tmp_path/f'a.{ext}')
        except (KeyError, ValueError, OSError): continue # not written by this Pillow
        assert check_image(tmp_path/f'a.{ext}')['error'] is None, ext
    pytest.importorskip('pillow_heif').register_heif_opener()
    picture.save(tmp_path/'a.heic')
    assert check_image(tmp_path/'a.heic')['error'] is None and not mark.exists()
