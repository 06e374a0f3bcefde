//go:build !race

package costtest

const withRaceDetector = false
