//! The picture: a line of what the engine is, one of views, the view, and one of what has happened or which keys there are.

use ratatui::Frame;
use ratatui::layout::{Alignment, Constraint, Layout, Rect};
use ratatui::style::{Color, Modifier, Style};
use ratatui::text::{Line, Span, Text};
use ratatui::widgets::{Block, Borders, Cell, Clear, Paragraph, Row, Sparkline, Table};

use super::app::{App, Link, Point, View};
use super::sheet::{self, Sheet};
use super::words::{Tone, bytes, fitness, percent, rate, span, troubles, whole};
use crate::base::Instant;
use crate::control::api::shapes::Overview;

/// Draws all of it.
pub(super) fn draw(frame: &mut Frame<'_>, app: &mut App, now: Instant) {
    let rows =
        Layout::vertical([Constraint::Length(1), Constraint::Length(1), Constraint::Min(0), Constraint::Length(1)]);
    let [head, tabs, body, foot] = rows.areas(frame.area());
    frame.render_widget(heading(app), head);
    frame.render_widget(views(app), tabs);
    let latest = app.latest.take();
    match &latest {
        None => frame.render_widget(Paragraph::new("no answer yet"), body),
        Some(overview) if app.view == View::Overview => draw_overview(frame, app, overview, body),
        Some(overview) => {
            let below = draw_sheet(frame, app, overview, body);
            if app.view == View::Lanes {
                draw_busy(frame, app, overview, below);
            }
        }
    }
    app.latest = latest;
    frame.render_widget(footing(app, now), foot);
    if app.is_help {
        draw_help(frame, app);
    }
    // Whatever an engine says, no terminal takes it for an order: ratatui lets control characters of a line pass.
    for cell in &mut frame.buffer_mut().content {
        if cell.symbol().contains(char::is_control) {
            cell.set_symbol("\u{fffd}");
        }
    }
}

fn style(tone: Tone, is_coloured: bool) -> Style {
    let color = match tone {
        Tone::Plain => return Style::new(),
        Tone::Good => Color::Green,
        Tone::Warn => Color::Yellow,
        Tone::Bad => Color::Red,
    };
    if is_coloured { Style::new().fg(color) } else { Style::new() }
}

fn accent(app: &App) -> Style {
    if app.is_coloured { Style::new().fg(Color::Cyan) } else { Style::new() }
}

const DIM: Style = Style::new().add_modifier(Modifier::DIM);
const BOLD: Style = Style::new().add_modifier(Modifier::BOLD);

fn heading(app: &App) -> Line<'static> {
    let Some(overview) = &app.latest else {
        return Line::from(Span::styled(format!("sealane top  {}", app.target), BOLD));
    };
    let engine = &overview.engine;
    let (fit, tone) = fitness(engine);
    let saved = if engine.configuration.unsaved_changes { ", not saved" } else { "" };
    let dim = |text: String| Span::styled(text, DIM);
    Line::from(vec![
        Span::styled(engine.engine.clone(), BOLD),
        dim(format!(" {}  ", engine.cluster)),
        Span::styled(fit, style(tone, app.is_coloured)),
        dim("  up ".to_owned()),
        Span::raw(span(overview.uptime_milliseconds / 1000)),
        dim("  connections ".to_owned()),
        Span::raw(whole(engine.connections)),
        dim("  configuration ".to_owned()),
        Span::raw(format!("{}{saved}", engine.configuration.configuration_version)),
        dim(format!("  version {}", engine.version)),
    ])
}

fn views(app: &App) -> Line<'static> {
    let mut spans = Vec::new();
    for (number, view) in (1..).zip(View::ALL) {
        let chosen = view == app.view;
        let style = if chosen { accent(app).add_modifier(Modifier::REVERSED) } else { Style::new() };
        spans.push(Span::styled(format!(" {number} {} ", view.name()), style));
    }
    if app.view.orders().len() > 1 {
        let reversed = if app.is_reversed { ", reversed" } else { "" };
        spans.push(Span::styled(format!("  by {}{reversed}", app.order()), DIM));
    }
    Line::from(spans)
}

fn footing(app: &App, now: Instant) -> Line<'static> {
    match (&app.link, app.notice(now)) {
        (Link::Lost(since, why), _) => {
            let text = format!("no answer for {}, asking on: {why}", span(now.since(*since).as_secs()));
            Line::from(Span::styled(
                sheet::printable(&text),
                style(Tone::Bad, app.is_coloured).add_modifier(Modifier::REVERSED),
            ))
        }
        (Link::New | Link::Up, Some(notice)) => {
            Line::from(Span::styled(notice.to_owned(), style(Tone::Warn, app.is_coloured)))
        }
        (Link::New | Link::Up, None) => {
            Line::from(Span::styled("q quit  1-5 Tab view  s sort  r reverse  ↑↓ scroll  ? help", DIM))
        }
    }
}

/// Height of a curve with its frame.
const CURVE: u16 = 5;

/// A rate over time.
struct Curve {
    title: String,
    of: fn(&Point) -> f64,
    /// The highest that it can be; without, the highest that it was is at the top.
    most: Option<u64>,
}

fn draw_overview(frame: &mut Frame<'_>, app: &App, overview: &Overview, area: Rect) {
    let total = app.rates.as_ref().map(super::rates::Rates::total);
    let shown = |of: &dyn Fn(super::rates::Lane) -> String| total.map_or_else(|| "-".to_owned(), of);
    let curve = |title: String, of, most| Curve { title, of, most };
    let curves = [
        curve(
            format!(
                "Handshakes/s  full {}  resumed {}",
                shown(&|total| rate(total.full)),
                shown(&|total| rate(total.resumed))
            ),
            |point| (point.total.full + point.total.resumed) * 10.0,
            None,
        ),
        curve(format!("Connections  {}", whole(overview.engine.connections)), |point| point.connections as f64, None),
        curve(
            format!("Bytes/s  in {}  out {}", shown(&|total| bytes(total.received)), shown(&|total| bytes(total.sent))),
            |point| point.total.received + point.total.sent,
            None,
        ),
        curve(
            format!("Busy  {}{}", shown(&|total| percent(total.busy)), busiest(app)),
            |point| point.total.busy * 1000.0,
            Some(1000),
        ),
    ];
    let is_wide = area.width >= 60;
    let lines = if is_wide { 2 } else { 4 };
    // Curves only where what is wrong has room below them.
    if area.height < lines * CURVE + 3 {
        let [numbers, rest] = Layout::vertical([Constraint::Length(4), Constraint::Min(0)]).areas(area);
        frame.render_widget(Paragraph::new(Text::from_iter(curves.map(|curve| Line::from(curve.title)))), numbers);
        return draw_troubles(frame, app, overview, rest);
    }
    let [curves_area, rest] = Layout::vertical([Constraint::Length(lines * CURVE), Constraint::Min(0)]).areas(area);
    let rows = Layout::vertical(vec![Constraint::Length(CURVE); lines.into()]).split(curves_area);
    let cells = rows.iter().flat_map(|row| {
        let columns = vec![Constraint::Fill(1); if is_wide { 2 } else { 1 }];
        Layout::horizontal(columns).spacing(1).split(*row).to_vec()
    });
    for (curve, cell) in curves.iter().zip(cells) {
        draw_curve(frame, app, curve, cell);
    }
    draw_troubles(frame, app, overview, rest);
}

/// The lane with the most to do, where there are several.
fn busiest(app: &App) -> String {
    let Some(rates) = app.rates.as_ref().filter(|rates| rates.lanes.len() > 1) else { return String::new() };
    let busiest = rates.lanes.iter().enumerate().max_by(|(_, one), (_, other)| one.busy.total_cmp(&other.busy));
    busiest.map_or_else(String::new, |(lane, rates)| format!("  most lane {lane} {}", percent(rates.busy)))
}

fn draw_curve(frame: &mut Frame<'_>, app: &App, curve: &Curve, area: Rect) {
    let title = Span::styled(format!(" {} ", curve.title), BOLD);
    let block = Block::new().borders(Borders::ALL).border_style(DIM).title(title);
    let data = newest(app, curve.of, block.inner(area).width);
    let shown = Sparkline::default().block(block).data(&data).style(accent(app));
    frame.render_widget(if let Some(most) = curve.most { shown.max(most) } else { shown }, area);
}

/// So many of the newest points, the very newest at the right.
fn newest(app: &App, of: impl Fn(&Point) -> f64, width: u16) -> Vec<u64> {
    // Rates are no larger than a machine makes them, and not negative.
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "casts of floats saturate")]
    let values: Vec<u64> = app.history.iter().map(|point| of(point).round() as u64).collect();
    let room = usize::from(width);
    let mut data = vec![0; room.saturating_sub(values.len())];
    data.extend(values.get(values.len().saturating_sub(room)..).unwrap_or_default());
    data
}

/// How busy each lane has been, a line each, as far as there is room.
fn draw_busy(frame: &mut Frame<'_>, app: &App, overview: &Overview, area: Rect) {
    let Some(rates) = app.rates.as_ref().filter(|_| area.height > 2) else { return };
    let lines = Layout::vertical(vec![Constraint::Length(1); usize::from(area.height)]).split(area);
    let mut lines = lines.iter().skip(1);
    if let Some(title) = lines.next() {
        frame.render_widget(Line::from(Span::styled("Busy, by lane", BOLD)), *title);
    }
    for (at, ((lane, own), line)) in overview.lanes.iter().zip(&rates.lanes).zip(lines).enumerate() {
        let columns = [Constraint::Length(9), Constraint::Fill(1), Constraint::Length(7)];
        let [name, middle, value] = Layout::horizontal(columns).areas(*line);
        frame.render_widget(Line::from(format!("lane {}", lane.lane)), name);
        let data = newest(app, |point| point.busy.get(at).copied().unwrap_or(0.0) * 1000.0, middle.width);
        frame.render_widget(Sparkline::default().data(&data).max(1000).style(accent(app)), middle);
        frame.render_widget(Line::from(percent(own.busy)).alignment(Alignment::Right), value);
    }
}

fn draw_troubles(frame: &mut Frame<'_>, app: &App, overview: &Overview, area: Rect) {
    let all = troubles(overview);
    let room = usize::from(area.height.saturating_sub(1)).max(1);
    let mut lines =
        vec![Line::from(Span::styled(if all.is_empty() { "Nothing is wrong" } else { "To look at" }, BOLD))];
    let shown = if all.len() > room { room.saturating_sub(1) } else { all.len() };
    lines.extend(all.iter().take(shown).map(|(trouble, tone)| {
        let mark = if *tone == Tone::Bad { "✕" } else { "!" };
        Line::from(vec![Span::styled(format!("{mark} "), style(*tone, app.is_coloured)), Span::raw(trouble.clone())])
    }));
    if shown < all.len() {
        lines.push(Line::from(Span::styled(format!("  and {} more", all.len() - shown), DIM)));
    }
    frame.render_widget(Paragraph::new(lines), area);
}

/// Draws a table, and gives what room is left below it.
fn draw_sheet(frame: &mut Frame<'_>, app: &mut App, overview: &Overview, area: Rect) -> Rect {
    let sheet = sheet::sheet(app.view, app, overview);
    let notes = notes(app.view, app, overview);
    let rows = Layout::vertical([Constraint::Length(u16::try_from(notes.len()).unwrap_or(0)), Constraint::Min(0)]);
    let [above, area] = rows.areas(area);
    frame.render_widget(Paragraph::new(notes), above);
    app.page = usize::from(area.height.saturating_sub(1)).max(1);
    app.scroll_max = sheet.rows.len().saturating_sub(app.page);
    app.scroll = app.scroll.min(app.scroll_max);
    frame.render_widget(table(&sheet, app, area.width), area);
    if app.scroll < app.scroll_max && area.height > 1 {
        let below = sheet.rows.len() - app.scroll - app.page;
        let line = Rect { y: area.bottom() - 1, height: 1, ..area };
        let hint = Line::from(Span::styled(format!(" ↓ {below} more "), Style::new().add_modifier(Modifier::REVERSED)));
        frame.render_widget(hint.alignment(Alignment::Right), line);
    }
    let taken = u16::try_from(sheet.rows.len() + 1).unwrap_or(u16::MAX).min(area.height);
    Rect { y: area.y + taken, height: area.height - taken, ..area }
}

fn notes(view: View, app: &App, overview: &Overview) -> Vec<Line<'static>> {
    match view {
        View::Overview | View::Lanes | View::Servers | View::Services => Vec::new(),
        View::Keys => {
            let ring = &overview.ticket_keys;
            let lanes = if ring.in_force { "in force on all lanes" } else { "not in force on every lane yet" };
            let about = format!("ring version {}, source {}, {lanes}", ring.version, ring.source);
            let alarm =
                |alarm: &String| Line::from(Span::styled(format!("alarm: {alarm}"), style(Tone::Bad, app.is_coloured)));
            std::iter::once(Line::from(about)).chain(ring.alarms.iter().map(alarm)).collect()
        }
    }
}

fn table(sheet: &Sheet, app: &App, width: u16) -> Table<'static> {
    let kept = sheet.fitting(width);
    let last = kept.last().copied();
    let columns: Vec<_> = kept.iter().filter_map(|at| Some((*at, sheet.columns.get(*at)?))).collect();
    let aligned = |text: String, is_right: bool| {
        Text::from(text).alignment(if is_right { Alignment::Right } else { Alignment::Left })
    };
    let head = Row::new(columns.iter().map(|(_, column)| Cell::new(aligned(column.title.to_owned(), column.is_right))))
        .style(DIM);
    let rows = sheet.rows.iter().skip(app.scroll).take(app.page).map(|row| {
        Row::new(columns.iter().map(|(at, column)| {
            let cell = row.get(*at);
            let text = cell.map(|cell| sheet::printable(&cell.text)).unwrap_or_default();
            Cell::new(aligned(text, column.is_right))
                .style(style(cell.map_or(Tone::Plain, |cell| cell.tone), app.is_coloured))
        }))
    });
    // A last column of words takes what room there is; numbers stay where they are.
    let width = |(at, column): &(usize, &sheet::Column)| {
        let is_open = Some(*at) == last && !column.is_right;
        if is_open { Constraint::Min(column.width) } else { Constraint::Length(column.width) }
    };
    Table::new(rows, columns.iter().map(width)).header(head).column_spacing(1)
}

const HELP: &str = "\
1 to 5, Tab, ← →   choose a view
s                  by what its rows stand in order
r                  the other way round
↑ ↓ PgUp PgDn      scroll, also k and j
Home End           to the first and the last
q, Esc, Ctrl-C     quit

Rates are of the last second, curves of the last five minutes.
sealane ctl changes what is shown here.";

fn draw_help(frame: &mut Frame<'_>, app: &App) {
    let area = frame.area();
    let (width, height) = (area.width.min(66), area.height.min(12));
    let area = Rect { x: (area.width - width) / 2, y: (area.height - height) / 2, width, height };
    frame.render_widget(Clear, area);
    let block = Block::new().borders(Borders::ALL).border_style(accent(app)).title(Span::styled(" Keys ", BOLD));
    frame.render_widget(Paragraph::new(HELP).block(block), area);
}
