"What is asked of a page in a real browser. Every check takes an open page and returns what is wrong with it, one text a finding."
import os, shutil
from pathlib import Path

names = ('chromium', 'chromium-browser', 'google-chrome')


def find_chromium():
    "Path of a browser: IMGSTUDY_CHROMIUM if that is set, else the first of `names` on the path; None if there is none."
    asked = os.environ.get('IMGSTUDY_CHROMIUM')
    return next(filter(None, map(shutil.which, [asked] if asked else names)), None)


def launch(playwright, path):
    "A headless browser. Its sandbox cannot be had as root, and small containers have too little shared memory."
    as_root = ['--no-sandbox'] if hasattr(os, 'geteuid') and os.geteuid() == 0 else []
    return playwright.chromium.launch(executable_path=path, args=['--disable-dev-shm-usage', *as_root])


def open_page(browser, file):
    "The page in `file`, and a list that collects its errors and the requests (all of them blocked) that leave it."
    page, wrong = browser.new_page(viewport=dict(width=1200, height=900), reduced_motion='reduce'), []
    url = Path(file).resolve().as_uri()

    def answer(route):
        if route.request.url.split('#')[0] == url: return route.continue_()
        wrong.append(f'a request leaves the page: {route.request.url[:200]}')
        route.abort()

    page.route(lambda asked: not asked.startswith(('data:', 'blob:')), answer)
    page.on('pageerror', lambda e: wrong.append(f'error: {e}'))
    page.on('console', lambda m: wrong.append(f'console: {m.text[:200]}') if m.type == 'error' else None)
    page.goto(url)
    return page, wrong


def show(page, width=1200, height=900, scheme='light', media='screen'):
    "Look at `page` at this size, in px, in this colour scheme, on screen or in print."
    page.set_viewport_size(dict(width=width, height=height))
    page.emulate_media(media=media, color_scheme=scheme, reduced_motion='reduce')


def open_details(page): page.evaluate("document.querySelectorAll('details').forEach(d => d.open = true)")


def bad_images(page):
    "Images that do not render, or say nothing to those who cannot see them."
    return page.evaluate('''async () => (await Promise.all([...document.images].map(async (img, i) => {
        img.loading = 'eager'                               // one that is never scrolled to counts, too
        await img.decode().catch(() => {})
        const name = `image ${i + 1} (${img.alt || img.src.slice(0, 60)})`
        return [img.naturalWidth ? [] : `${name} does not render`, img.alt.trim() ? [] : `${name} has no alt text`].flat()
    }))).flat()''')


_touching = '''gap => {
    const found = [], seen = new Set()
    for (const e of document.querySelectorAll('img[src^="data:image/svg"], source[srcset^="data:image/svg"]')) {
        const data = (e.srcset || e.src).split(',')[1], box = document.createElement('div')
        if (seen.has(data)) continue
        seen.add(data)
        box.innerHTML = new TextDecoder().decode(Uint8Array.from(atob(data), c => c.charCodeAt(0)))
        document.body.append(box)
        const level = t => t.textContent.trim() && !/rotate\\(-(?!0[ ,)])/.test(t.getAttribute('transform'))
        const texts = [...box.querySelectorAll('text')].filter(level).map(t => [t.textContent.trim(), t.getBoundingClientRect()])
        texts.forEach(([said, a], i) => texts.slice(0, i).forEach(([before, b]) => {
            const high = Math.min(a.bottom, b.bottom) - Math.max(a.top, b.top) // lines of one text stand close
            if (high > .3*Math.min(a.height, b.height) && Math.min(a.right, b.right) - Math.max(a.left, b.left) > -gap)
                found.push(`${before} touches ${said}: ${(e.alt || e.parentElement.querySelector('img').alt).slice(0, 60)}`)
        }))
        box.remove()
    }
    return found
}'''


def touching_labels(page, gap=1.5):
    "Level texts of a drawing with less than `gap` px between them, also in the drawings for other screens."
    return page.evaluate(_touching, gap)


def bad_ids(page):
    "Ids that occur twice, and links to none."
    return page.evaluate('''() => {
        const ids = [...document.querySelectorAll('[id]')].map(e => e.id), known = new Set(ids)
        const to = [...document.querySelectorAll('a[href^="#"]')].map(a => decodeURIComponent(a.getAttribute('href').slice(1)))
        return [...ids.filter((id, i) => ids.indexOf(id) < i).map(id => `id ${id} occurs twice`),
                ...to.filter(id => !known.has(id)).map(id => `a link leads to #${id}, which is not there`)]
    }''')


def bad_contents(page):
    "Links of the contents (those in a nav) that do not bring what they name into view."
    show(page)
    links = page.query_selector_all('nav a[href^="#"]')
    return [f'{a.get_attribute("href")} is not in view after a click' for a in links if not _leads(page, a)] or \
        ([] if links else ['there are no contents: no nav with links into the page'])


def _leads(page, link):
    "Whether a click on `link` brings its target's beginning into view, and under nothing that stays in place."
    from playwright.sync_api import Error
    try:
        link.click(timeout=2000)
        return bool(page.wait_for_function('''id => {
            const target = document.getElementById(id), box = target.getBoundingClientRect()
            if (box.top < -1 || box.top >= innerHeight) return false
            let e = document.elementFromPoint(box.left + 1, Math.max(box.top, 0) + Math.min(box.height, 16)/2)
            if (!e || target.contains(e) || e.contains(target)) return true
            for (; e; e = e.parentElement) if (['fixed', 'sticky'].includes(getComputedStyle(e).position)) return false
            return true
        }''', arg=link.get_attribute('href')[1:], timeout=2000))
    except Error: return False


_outside = '''own => {
    const wide = document.documentElement.clientWidth + 1, name = e => e.tagName.toLowerCase() + (e.id ? '#' + e.id : '')
    const scrolls = e => e && e !== document.body && (['auto', 'scroll'].includes(getComputedStyle(e).overflowX) || scrolls(e.parentElement))
    const seen = e => { const box = e.getBoundingClientRect(); return box.width > 1 && box.height > 1 && box.right > wide }
    const found = [...document.body.querySelectorAll(':not(svg *)')].filter(e => seen(e) && !(own && scrolls(e.parentElement)))
    return found.map(e => `${name(e)} reaches to ${Math.round(e.getBoundingClientRect().right)} px of ${wide - 1}: ` +
                          (e.alt || e.textContent).trim().slice(0, 40))
}'''


def too_wide(page, width=390):
    "What makes the page scroll sideways at `width` px, or is cut off there; wide tables scroll in a box of their own."
    show(page, width)
    open_details(page)
    has = page.evaluate('document.scrollingElement.scrollWidth')
    return page.evaluate(_outside, True)[:8] + ([f'the page is {has} px wide at {width} px'] if has > width else [])


def too_wide_in_print(page, width=718):
    "What is wider than a sheet of paper, where nothing scrolls; `width` is A4 (794 px) with 1 cm at each side."
    show(page, width, media='print')
    open_details(page)
    found = page.evaluate(_outside, False)[:8]
    show(page)
    return found


def bad_details(page):
    "Folded parts that a click does not open, from the first to the last, so that inner ones come after those around them."
    show(page)
    return page.evaluate('''() => {
        const all = [...document.querySelectorAll('details')]
        all.forEach(d => d.open = false)
        const opens = d => { const s = d.querySelector('summary'); if (s && s.offsetHeight) s.click(); return d.open }
        return all.map(opens).flatMap((open, i) => open ? [] : [`details ${i + 1} does not open`])
    }''')


rules = ['wcag2a', 'wcag2aa', 'wcag21a', 'wcag21aa']


_thin_out = '''() => {
    const look = e => e.tagName + e.className + (e.getAttribute('style') || '') + [...e.children].map(look)
    for (const body of document.querySelectorAll('tbody')) {
        const seen = {}
        for (const row of [...body.rows]) if ((seen[look(row)] = (seen[look(row)] || 0) + 1) > 2) row.remove()
    }
}'''


def inaccessible(page, scheme='light', width=1200):
    "Violations of WCAG 2.1 A and AA that axe-core sees, contrast among them. Takes away rows that look like others: they would take minutes."
    from axe_playwright_python.sync_playwright import Axe
    show(page, width, scheme=scheme)
    open_details(page)
    page.evaluate(_thin_out)
    options = dict(runOnly=dict(type='tag', values=rules), resultTypes=['violations'])
    found = Axe().run(page, options=options).response['violations']
    return [f"{v['id']}: {v['help']}: {n['html'][:120]} {' '.join(c['message'] for c in n['any'] + n['all'] + n['none'])[:200]}"
            for v in found for n in v['nodes'][:4]]
