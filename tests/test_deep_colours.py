"Colours with 16 bits, of which Pillow alone keeps the upper eight. The oracle is the array that was written, by a writer of our own."
import io, struct, zlib
import numpy as np, pytest
from PIL import Image
from imgstudy.data.images import StudyImage, check_image, deep_values, open_upright
from imgstudy.data.pixels import get_pixels
from imgstudy.data.split import load_data
from imgstudy.predict import open_image
from imgstudy.runs import make_run


def png(a, orientation=None): # uint16 [h, w, 3 or 4]
    chunk = lambda name, data: struct.pack('>I', len(data)) + name + data + struct.pack('>I', zlib.crc32(name + data))
    head = struct.pack('>IIBBBBB', a.shape[1], a.shape[0], 16, {3: 2, 4: 6}[a.shape[2]], 0, 0, 0)
    rows = np.frombuffer(a.astype('>u2').tobytes(), np.uint8).reshape(len(a), -1)
    before = np.pad(rows, ((1, 0), (0, 0)))[:-1]
    up = b''.join(b'\2' + (r - b).astype(np.uint8).tobytes() for r, b in zip(rows, before)) # filtered, as encoders do
    exif = chunk(b'eXIf', b'II*\0' + struct.pack('<IHHHIHHI', 8, 1, 0x112, 3, 1, orientation, 0, 0)) if orientation else b''
    return b'\x89PNG\r\n\x1a\n' + chunk(b'IHDR', head) + exif + chunk(b'IDAT', zlib.compress(up)) + chunk(b'IEND', b'')


def tiff(a, order='<', packed=False):
    h, w, n = a.shape
    data = a.astype(f'{order}u2').tobytes()
    if packed: data = zlib.compress(data)
    entry = lambda tag, kind, count, value: struct.pack(f'{order}HHI', tag, kind, count) + (struct.pack(f'{order}HH', value, 0) if kind == 3 else struct.pack(f'{order}I', value))
    tags = [(256, 4, 1, w), (257, 4, 1, h), (258, 3, n, None), (259, 3, 1, 8 if packed else 1), (262, 3, 1, 2), (273, 4, 1, None), (277, 3, 1, n),
            (278, 4, 1, h), (279, 4, 1, len(data)), (284, 3, 1, 1)]
    at = 8 + 2 + 12*len(tags) + 4
    body = b''.join(struct.pack(f'{order}HHII', t, k, c, at) if t == 258 else entry(t, k, c, at + 2*n if t == 273 else v) for t, k, c, v in tags)
    return (b'II*\0' if order == '<' else b'MM\0*') + struct.pack(f'{order}IH', 8, len(tags)) + body + struct.pack(f'{order}I', 0) + struct.pack(f'{order}{n}H', *[16]*n) + data


rng = np.random.default_rng(0)
ways = {'png': png, 'little.tif': tiff, 'big.tif': lambda a: tiff(a, '>'), 'packed.tif': lambda a: tiff(a, packed=True), 'packed big.tif': lambda a: tiff(a, '>', True)}


@pytest.mark.parametrize('way', ways)
@pytest.mark.parametrize('top', [255, 4095, 65535])
def test_every_value_arrives(way, top, tmp_path):
    a = rng.integers(0, top + 1, (13, 17, 3)).astype(np.uint16)
    (tmp_path/f'a.{way}').write_bytes(ways[way](a))
    assert (deep_values(open_upright(tmp_path/f'a.{way}')) == a).all()
    got = np.asarray(StudyImage.create(tmp_path/f'a.{way}', (0, top)))
    assert np.abs(got - a*(255/top)).max() <= .5 and (np.asarray(open_image(tmp_path/f'a.{way}', (0, top))) == got).all()
    assert check_image(tmp_path/f'a.{way}')['mode'] == 'I;16 RGB'


def test_transparent_ones_lie_on_white(tmp_path):
    a = np.concatenate([rng.integers(0, 4096, (6, 8, 3)), np.zeros((6, 8, 1), int)], 2).astype(np.uint16)
    a[:3, :, 3] = 65535
    (tmp_path/'a.png').write_bytes(png(a))
    got = np.asarray(StudyImage.create(tmp_path/'a.png', (0, 4095)))
    assert np.abs(got[:3] - a[:3, :, :3]*(255/4095)).max() <= 1 and (got[3:] == 255).all()


@pytest.mark.parametrize('orientation', range(1, 9))
def test_both_bytes_are_turned(orientation, tmp_path):
    a = rng.integers(0, 65536, (5, 9, 3)).astype(np.uint16)
    (tmp_path/'a.png').write_bytes(png(a, orientation))
    turned = {2: a[:, ::-1], 3: a[::-1, ::-1], 4: a[::-1], 5: a.transpose(1, 0, 2), 6: a.transpose(1, 0, 2)[:, ::-1], 7: a.transpose(1, 0, 2)[::-1, ::-1], 8: a.transpose(1, 0, 2)[::-1]}
    assert (deep_values(open_upright(tmp_path/'a.png')) == turned.get(orientation, a)).all()


@pytest.mark.parametrize('top', [255, 1023, 4095, 65535])
def test_one_range_for_a_folder_of_them(top, tmp_path, capsys, monkeypatch):
    monkeypatch.setenv('IMGSTUDY_CACHE', str(tmp_path/'cache'))
    want = {}
    for c in 'ab':
        (tmp_path/'p'/c).mkdir(parents=True)
        for i in range(10):
            a = (np.linspace(0, top, 32*32*3).reshape(32, 32, 3)*(.4 + .06*i)).round().astype(np.uint16)[::1 if c == 'a' else -1]
            (tmp_path/'p'/c/f'{i}.png').write_bytes(png(a))
            want[f'{c}/{i}.png'] = a*(255/top)
    data = load_data(make_run(dataset=f'folder:{tmp_path}/p', model='lenet5'))
    assert data.image_range == (0, top) and '20 of 20 images hold more than 8 bits' in capsys.readouterr().out
    pixels = get_pixels(data, 32)
    for path, got in zip(data.items.path, pixels.array()[pixels.rows(data.items.path.tolist())]): assert np.abs(got.astype(float) - want[path]).max() <= 1


@pytest.mark.parametrize('damage', [lambda b: b[:len(b)//2], lambda b: b[:200], lambda b: b[:100] + bytes(900) + b[1000:]])
def test_damaged_ones_are_named(damage, tmp_path):
    a = rng.integers(0, 4096, (40, 40, 3)).astype(np.uint16)
    (tmp_path/'a.png').write_bytes(damage(png(a)))
    assert check_image(tmp_path/'a.png')['error']


@pytest.mark.parametrize('mode', ['RGB', 'L', 'P', 'CMYK', 'RGBA'])
def test_8_bits_are_read_as_ever(mode, tmp_path):
    im = Image.fromarray(rng.integers(0, 255, (9, 9, 3), np.uint8)).convert(mode)
    im.save(buf := io.BytesIO(), 'TIFF')
    assert 'lower_bytes' not in open_upright(buf).info
