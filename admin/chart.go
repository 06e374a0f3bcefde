package admin

import (
	"fmt"
	"strings"
)

// The size of a chart in its own units. The browser stretches it.
const chartWidth, chartHeight = historySamples - 1, 40

// chart is one or two lines over the last hour. The newest sample is at the right.
type chart struct {
	Name  string
	Label string // for readers of the screen
	Max   string // the highest value, with its unit
	Lines []line
}

// line is a line of a chart.
type line struct {
	Name string
	Now  string // the newest value, with its unit
	Path string // the data of an SVG path
}

// series is what a line shows.
type series struct {
	name  string
	value func(sample) float32
}

// newChart returns a chart of values of samples, nil if there are fewer than two samples.
func newChart(name, unit string, samples []sample, list ...series) *chart {
	if len(samples) < 2 {
		return nil
	}
	top := float32(0)
	for _, s := range samples {
		for _, shown := range list {
			top = max(top, shown.value(s))
		}
	}
	c := &chart{Name: name, Max: amount(float64(top)) + unit}
	var now []string
	for _, shown := range list {
		l := line{shown.name, amount(float64(shown.value(samples[len(samples)-1]))) + unit, linePath(samples, shown.value, top)}
		c.Lines, now = append(c.Lines, l), append(now, strings.TrimSpace(l.Name+" "+l.Now))
	}
	c.Label = fmt.Sprintf("%s, last hour: now %s, at most %s", name, strings.Join(now, " and "), c.Max)
	return c
}

// linePath returns the data of an SVG path.
func linePath(samples []sample, value func(sample) float32, top float32) string {
	var b strings.Builder
	for i, s := range samples {
		y := float32(chartHeight - 1)
		if top > 0 {
			y -= value(s) / top * (chartHeight - 2)
		}
		op := "L"
		if i == 0 {
			op = "M"
		}
		fmt.Fprintf(&b, "%s%d %.1f", op, chartWidth-len(samples)+1+i, y)
	}
	return b.String()
}

// amount formats a number with two or three digits.
func amount(v float64) string {
	switch {
	case v >= 1e6:
		return fmt.Sprintf("%.1f M", v/1e6)
	case v >= 1e4:
		return fmt.Sprintf("%.1f k", v/1e3)
	case v >= 10 || v == float64(int(v)):
		return fmt.Sprintf("%.0f", v)
	}
	return fmt.Sprintf("%.2g", v)
}

// rates returns a chart of messages per second.
func rates(samples []sample) *chart {
	return newChart("Messages", "/s", samples,
		series{"out", func(s sample) float32 { return s.out }}, series{"in", func(s sample) float32 { return s.in }})
}

// depths returns a chart of waiting messages.
func depths(samples []sample) *chart {
	return newChart("Messages waiting", "", samples, series{"", func(s sample) float32 { return s.waiting }})
}

// confirms returns a chart of the time to confirm.
func confirms(samples []sample) *chart {
	return newChart("Time to confirm", " ms", samples,
		series{"median", func(s sample) float32 { return s.p50 }}, series{"99 %", func(s sample) float32 { return s.p99 }})
}
