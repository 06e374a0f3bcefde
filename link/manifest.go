package link

import (
	"errors"

	"peerlink/node"
)

// checkOwnStompTOML tells of changes of the node's own stomp.toml. The service needs
// nothing from it, and goes on whatever it says. But peers learn of a change only
// from a new info-bundle, which somebody has to make.
func (s *Service) checkOwnStompTOML() {
	stamp := s.cfg.Dir.StompTOMLStamp()
	first := s.stompTOMLStamp == nil
	if !first && stamp == *s.stompTOMLStamp {
		return
	}
	changed := !first && stamp[0] != s.stompTOMLStamp[0]
	s.stompTOMLStamp = &stamp
	switch err := s.cfg.Dir.CheckStompTOML(); {
	case errors.Is(err, node.ErrUnpublished):
		s.log.Warn("own stomp.toml is not what peers know", "err", err, "what_to_do", "make a new info-bundle (peerlink bundle create)")
	case err != nil:
		s.log.Error("own stomp.toml can not be used, peers keep what they know", "err", err)
	case changed:
		s.log.Info("own stomp.toml has changed, peers learn of it from an info-bundle that has it")
	}
}
