"""The console's tab on tuning in a browser: curves, buttons, and errors shown as text."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator

import pytest
from playwright.sync_api import Browser, Page, expect

from app.service import Service
from app.workspace import Workspace
from engine.prompts.modes import PromptTemplate
from tests.app.browser.test_axe import LOOKS, serious
from tests.app.browser.test_chat import SCRIPT
from tests.app.chat_page import ChatPage
from tests.app.conftest import Played
from tests.app.learning.test_resumed_jobs import pairs
from tests.app.ui.test_tuning_console import BEGUN, JUDGED, SNAPSHOTS, fail, report, start, step

pytestmark = pytest.mark.integration


@pytest.fixture
def tab(chromium: Browser, url: str) -> Iterator[Callable[[], Page]]:
    """Opens the tab in a new browser."""
    context = chromium.new_context(locale="en-US", viewport={"width": 1300, "height": 900})

    def opened() -> Page:
        page = context.new_page()
        page.goto(f"{url}/console/")
        page.get_by_role("tab", name="Tuning").click()
        return page

    yield opened
    context.close()


def run_through_sft(workspace: Workspace) -> None:
    """A running job that has made thirteen steps."""
    job = start(workspace, SNAPSHOTS[1])
    steps = [step("dpo", number, **JUDGED) for number in range(1, 9)]
    report(workspace, job, BEGUN, *[step("sft", n, of=5) for n in range(1, 6)], *steps)


@pytest.fixture
def console(tab: Callable[[], Page], service: Service, scripted_jobs: None) -> Page:
    """The tab, over one running job and one that failed of a script."""
    fail(service.workspace, start(service.workspace), SCRIPT)
    run_through_sft(service.workspace)
    page = tab()
    expect(page.locator("#jobs")).to_contain_text("running", timeout=30_000)
    return page


def test_the_curves_of_a_job_are_drawn_after_those_of_one_without_steps(
    tab: Callable[[], Page], service: Service, scripted_jobs: None
) -> None:
    fail(service.workspace, start(service.workspace), SCRIPT)
    console = tab()
    facts = console.locator("#job-facts textarea")
    expect(facts).to_have_value(re.compile("state: failed"), timeout=30_000)
    run_through_sft(service.workspace)
    console.locator("#jobs span", has_text=re.compile("^running$")).click(timeout=20_000)
    expect(facts).to_have_value(re.compile("state: running"), timeout=20_000)
    for plot in ("loss", "accuracy", "rewards"):
        lines = console.locator(f"#{plot} .mark-line path").first
        expect(lines).to_be_attached()
        box = lines.bounding_box()
        assert box is not None
        assert box["width"] > 100  # across the plot
        drawn = console.locator(f"#{plot} svg.marks").bounding_box()
        assert drawn is not None
        assert drawn["y"] < box["y"] < drawn["y"] + drawn["height"]


def test_the_operator_watches_a_job_stops_it_and_goes_on(console: Page, service: Service) -> None:
    jobs = service.workspace.jobs
    newest = jobs.list()[0].id
    facts = console.locator("#job-facts textarea")
    expect(facts).to_have_value(re.compile("step: dpo 8/10"))
    for plot in ("loss", "accuracy", "rewards"):
        drawing = console.locator(f"#{plot} canvas, #{plot} svg.marks").first
        expect(drawing).to_be_visible()
        inner, outer = drawing.bounding_box(), console.locator(f"#{plot}").bounding_box()
        assert inner is not None
        assert outer is not None
        assert inner["y"] + inner["height"] <= outer["y"] + outer["height"]  # with its legend
    report(service.workspace, newest, step("dpo", 9, **JUDGED))
    expect(facts).to_have_value(re.compile("step: dpo 9/10"), timeout=20_000)
    if picture := os.environ.get("BURNISH_TEST_SCREENSHOT"):
        console.wait_for_timeout(1500)
        console.screenshot(path=picture)
    expect(console.locator("#resume-job")).to_be_disabled()
    console.click("#cancel-job")
    expect(facts).to_have_value(re.compile("state: cancelled"), timeout=20_000)
    console.click("#resume-job")
    expect(facts).to_have_value(re.compile("state: running"), timeout=20_000)
    assert jobs.get(newest).state == "running"


def test_a_script_in_an_error_is_shown_and_does_not_run(console: Page) -> None:
    cell = console.locator("#jobs [role=gridcell]").filter(has_text="failed").first
    cell.click()
    expect(console.locator("#job-facts textarea")).to_have_value(re.compile("<script>"))
    expect(console.locator("#jobs")).to_contain_text("onerror")
    console.wait_for_timeout(500)
    assert console.evaluate("window.hacked") is None


@pytest.mark.parametrize("look", LOOKS)
def test_nothing_serious_is_found_on_the_form_and_on_the_settings(
    look: str, newcomer: Callable[..., ChatPage], stage: Played
) -> None:
    store = stage.service.workspace.store
    store.add_imported(pairs(4), PromptTemplate("plain", "", "", ()), "ann")
    page = newcomer(stage.url, **LOOKS[look]).page
    page.goto(f"{stage.url}/console/")
    open_tab(page, "training-form")
    page.locator("#training-form button").first.click()
    page.locator("#section-joint button").first.click(timeout=20_000)
    expect(page.locator("#field-joint-epochs input")).to_have_value("3")
    page.click("#plan-training")
    expect(page.locator("#plan .warnings")).to_be_visible(timeout=30_000)
    expect(page.locator("#start-training")).to_be_visible()
    assert serious(page) == []
    open_tab(page, "which-settings")
    expect(page.locator("#settings")).to_contain_text("tune_nice", timeout=20_000)
    assert serious(page) == []


def open_tab(page: Page, identifier: str) -> None:
    """Open the tabs one after the other, those of a narrow screen's menu too, until one has it."""
    wanted = page.locator(f"#{identifier}")
    expect(page.get_by_role("tab").first).to_be_visible(timeout=30_000)
    for tab in page.get_by_role("tab").all():
        if tab.is_visible():
            tab.click()
            if wanted.is_visible():
                return
    for number in range(page.locator(".overflow-dropdown button").count()):
        page.locator(".overflow-menu > button").click()
        page.locator(".overflow-dropdown button").nth(number).click()
        if wanted.is_visible():
            return
    raise AssertionError(f"no tab has #{identifier}")
