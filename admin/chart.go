package admin

import (
	"fmt"
	"strings"
)

// The size of a chart in its own units. The browser stretches it.
const chartWidth, chartHeight = historySamples - 1, 40

// chart is one or two lines over the last hour. The newest sample is at the right.
type chart struct {
	Label string // for readers of the screen
	Max   string // the highest value, with its unit
	Lines []string
}

// newChart returns a chart of values of samples, nil if there are fewer than two samples.
func newChart(label, unit string, samples []sample, values ...func(sample) float32) *chart {
	if len(samples) < 2 {
		return nil
	}
	top := float32(0)
	for _, s := range samples {
		for _, value := range values {
			top = max(top, value(s))
		}
	}
	c := &chart{Max: amount(float64(top)) + unit}
	var now []string
	for _, value := range values {
		c.Lines = append(c.Lines, linePath(samples, value, top))
		now = append(now, amount(float64(value(samples[len(samples)-1])))+unit)
	}
	c.Label = fmt.Sprintf("%s, last hour: now %s, at most %s", label, strings.Join(now, " and "), c.Max)
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
	return newChart("messages out and in", "/s", samples,
		func(s sample) float32 { return s.out }, func(s sample) float32 { return s.in })
}

// depths returns a chart of waiting messages.
func depths(samples []sample) *chart {
	return newChart("messages waiting", "", samples, func(s sample) float32 { return s.waiting })
}

// confirms returns a chart of the time to confirm.
func confirms(samples []sample) *chart {
	return newChart("median and 99 % of the time to confirm", " ms", samples,
		func(s sample) float32 { return s.p50 }, func(s sample) float32 { return s.p99 })
}
